// SPDX-License-Identifier: Apache-2.0

// Package ingest turns the bytes of raw YAML files into a plan: which managed
// files to write, which raw files to reject, and why.
//
// The package is pure. It reads no clock, no git, no network and no file
// system: the same bytes give the same plan on every host and at any time.
// That is what makes it safe to throw a plan away and make it anew on top of
// another commit, and what lets a pre-commit hook give the very verdict that
// the daemon will give.
//
// # One file, one verdict
//
// [Policy.Read] takes one raw file and returns a [Verdict]. The file is the
// unit: either every document in it is good and it yields one [Object] per
// document, or it is rejected and yields problems. Every problem is reported,
// not just the first one. A [Problem] has a stable code (HH1xx: not readable,
// HH2xx: not a good object, HH3xx: not allowed here, HH4xx: not by its schema, HH5xx:
// not fitting the others of its fabric), a place and what to do;
// [Explain] has a page for each code, and [Reason] renders a verdict as the
// text that lies beside a rejected file.
//
// With [Policy.Partial] the document is the unit. [Policy.Plan] cuts a file that
// has good documents as well as others in two, between lines: each part is a
// file of its own from then on, and no line is in both, or in none.
//
// # The same reading as Kubernetes
//
// What is stored and applied is exactly what "kubectl apply -f" reads from the
// same bytes. kubectl cuts a file into documents at lines that begin with
// "---", before any YAML parser sees it, and reads each document as YAML 1.1
// (sigs.k8s.io/yaml). Other programs that will meet the managed file read
// YAML 1.2 (gopkg.in/yaml.v3, yq, editors). So each document is read by both,
// and where the two do not give the same values, or where one of them would
// silently drop or join documents, the file is rejected and the problem shows
// both readings. The decisions, one by one:
//
//   - "---", alone or with a comment: cuts. The comment moves to the object.
//     "--- value", "----", "---#c": refused (HH112), as kubectl does.
//   - "...": ends the document. kubectl drops what follows it, without a word,
//     up to the next "---": refused (HH114), except blank lines and comments.
//   - "%YAML" and other directives: refused (HH113), kubectl cannot read them.
//   - A byte order mark at the start of the file and CRLF line ends are read
//     and normalised away, as kubectl does. A byte order mark elsewhere, a
//     carriage return of its own, and U+0085, U+2028 and U+2029 (line ends in
//     YAML 1.1, not in 1.2 or in JSON) are refused (HH105), as are control
//     characters. What is not UTF-8 is refused (HH104); kubectl would replace
//     bytes.
//   - A document of blank lines and comments is skipped, as kubectl does; its
//     comments go to the object that follows. An explicit null is refused
//     (HH201).
//   - JSON, and a stream that begins with a JSON object, is read by kubectl
//     with a JSON decoder: it is read a third time with that. JSON objects one
//     after the other without "---" are refused (HH114).
//   - Duplicate keys are refused (HH115); kubectl takes the last one.
//   - yes, no, on, off, y, n, times, dates and whatever else YAML 1.1 and 1.2
//     take for different values are refused (HH116), and so are integers that
//     neither int64 nor a float64 holds exactly. Octal (0755), hexadecimal and
//     1_000 mean the same to both and are allowed.
//   - Keys that Kubernetes does not read as they are written (on, 0x10, null,
//     lists) are refused (HH117); 1 and true are allowed as keys.
//   - Tags that are not YAML's own are refused (HH118): Kubernetes ignores
//     them. .inf and .nan have no JSON (HH119).
//   - Anchors, aliases and merge keys are allowed where both readers agree on
//     what they expand to, and up to a bound (HH108).
//
// # Limits
//
// [Limits] bound the size of a file, the number of its documents, their nesting
// and what their aliases expand to, each with a code of its own (HH102, HH121,
// HH107, HH108). A document may never have more than etcd takes (HH106). What was
// accepted before is not held against them.
//
// Documents are read on all CPUs, so many at once as together have no more bytes
// than a large one. What comes of it does not depend on how many CPUs there are.
//
// # Schemas
//
// [Policy.Compile] makes [Schemas] of CustomResourceDefinitions. With them an
// object is held against its kind's schema by the API server's own code
// (k8s.io/apiextensions-apiserver), in its order: unknown fields, nulls,
// defaults, values, rules. What is managed with the very same text is not
// judged again, and what was wrong in the managed object and has not changed
// does not count, as in the API server ("ratcheting"). Defaults are filled in
// for the judgement only.
//
// # References
//
// The schemas of Hedgehog are lax: that a connection's switch is there and its
// port free is only said by Hedgehog's admission, object by object, against what
// is in the cluster at that moment. [Policy.Plan] says it of a whole batch,
// against the managed objects, of which a [Fabric] knows what that takes. Files
// of a batch may refer to each other in any order. A file is rejected for what
// that admission refuses (as of githedgehog/fabric v0.126, api/*/v1beta1); what
// it lets pass, or what git may just not know of, is a warning. What an object
// had wrong before it was changed is not held against it. Nor may a file take
// away what objects refer to that the batch leaves as they are.
//
// # Admission
//
// What the fabric's cluster itself would say can be asked of it by a dry run, one
// object at a time, against what it holds. [Plan.Questions] names the objects of
// a plan for which that means something: not those that lead to another one which
// the cluster does not have yet as it will be. What it refuses is handed back as a
// fact ([Policy.Refused]), and the batch planned once more. Nothing is asked here.
//
// # The author's text
//
// The managed file is the document's own text: comments, key order, quoting
// and block styles are kept. Only what a stable file and the readers of
// Hedgehog need is normalised: no byte order mark, LF line ends, no "---" or
// "...", no blank lines at the end and one final newline. A managed file
// starts with its object, because Hedgehog's own reader takes comments in
// front of it for an (invalid) object of their own: comment lines that stand
// there move behind the first line where that is a whole entry (apiVersion
// usually is), else to the end. Normalising twice gives the same bytes, and no
// text is returned before it was read again and gave the same values (HH120).
package ingest
