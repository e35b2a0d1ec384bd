// SPDX-License-Identifier: Apache-2.0

package ingest

import "fmt"

// The codes of problems. A code, once released, keeps its meaning: people
// script against them and search for them.
const (
	badFileName     = "HH101"
	fileTooLarge    = "HH102"
	noObject        = "HH103"
	notUTF8         = "HH104"
	badCharacter    = "HH105"
	documentLarge   = "HH106"
	tooDeep         = "HH107"
	badAlias        = "HH108"
	tooManyProblems = "HH109"
	badSyntax       = "HH110"
	tabIndent       = "HH111"
	badSeparator    = "HH112"
	directive       = "HH113"
	afterEnd        = "HH114"
	duplicateKey    = "HH115"
	twoReadings     = "HH116"
	badKey          = "HH117"
	badTag          = "HH118"
	noJSONValue     = "HH119"
	textNotKept     = "HH120"

	tooManyDocuments = "HH121"

	notMapping     = "HH201"
	badAPIVersion  = "HH202"
	badKind        = "HH203"
	noName         = "HH204"
	badName        = "HH205"
	nameTooLong    = "HH206"
	badNamespace   = "HH207"
	generatedName  = "HH208"
	badStringMap   = "HH209"
	isList         = "HH210"
	serverMetadata = "HH211"
	twiceInFile    = "HH212"
	notOneObject   = "HH213"
	wrongPath      = "HH214"
	badMetadata    = "HH215"
	badEnsure      = "HH216"

	groupNotAllowed = "HH301"
	kindNotAllowed  = "HH302"
	notServed       = "HH303"

	unknownField     = "HH401"
	wrongType        = "HH402"
	missingField     = "HH403"
	valueNotAllowed  = "HH404"
	brokenRule       = "HH405"
	versionNotServed = "HH406"

	noObjectThere      = "HH501"
	noSubnet           = "HH502"
	malformedReference = "HH503"
	portTaken          = "HH504"
	subnetOverlaps     = "HH505"
	subnetOutside      = "HH506"
	vlanTaken          = "HH507"
	vlanOutside        = "HH508"
	takenAway          = "HH509"

	refusedByCluster = "HH601"
)

// A page is what is known about a code.
type page struct {
	title       string
	explanation string
	remedy      string // the hint of problems that have no better one
}

// table is the one place where codes are explained; docs/problems.md is made
// from it.
var table = map[string]page{
	badFileName: {
		"The file's name is not one of a YAML or JSON file",
		"Only files whose names end in .yaml, .yml or .json, in lower case, are read, as kubectl does with the files of a directory.",
		"rename it so that it ends in .yaml, .yml or .json",
	},
	fileTooLarge: {
		"The file is too large",
		"A raw file may have 16 MiB, unless limits.file in the config says otherwise. Ten thousand objects usually need less than 4 MiB.",
		"split it into several files",
	},
	noObject: {
		"The file holds no object",
		"The file is empty, or has only blank lines, comments and document separators.",
		"write at least one object into it, or delete it",
	},
	notUTF8: {
		"The file is not UTF-8",
		"YAML files for Kubernetes are UTF-8. A file in UTF-16 (as some Windows programs save), in Latin-1, or a binary file is refused, because replacing what cannot be read would change values.",
		"save it as UTF-8",
	},
	badCharacter: {
		"A character that YAML does not allow, or that readers take differently",
		"Control characters are not allowed in YAML, not even in comments. A carriage return that no line feed follows, U+0085, U+2028 and U+2029 end a line for some readers and not for others, and a byte order mark inside of a file cannot be seen.",
		"delete the character, or write it as an escape in double quotes",
	},
	documentLarge: {
		"A document is too large",
		"A document may have 1.5 MiB. The database of the API server (etcd) takes no larger object, so it could never be applied.",
		"split the object, or move what makes it large elsewhere",
	},
	tooDeep: {
		"A document is nested too deeply",
		"Lists and mappings may be nested 100 levels deep, unless limits.depth in the config says otherwise. No object of a fabric comes near that.",
		"check the brackets and the indentation",
	},
	badAlias: {
		"Aliases that contain themselves or expand too far",
		"An alias (*name) stands for all that its anchor (&name) holds. Expanded, a document may have 1.5 MiB, as much as one without aliases, unless limits.aliases in the config says less. An anchor that contains its own alias has no end.",
		"write the values out instead of using aliases",
	},
	tooManyProblems: {
		"More problems than are listed",
		"At most 1000 problems of a file are listed.",
		"correct those that are listed first",
	},
	badSyntax: {
		"The document is not YAML",
		"The YAML parser cannot read the document. The message is the parser's own. The line is where the parser gave up, the mistake is there or somewhat above. The other documents of the file were still looked at.",
		"check the indentation, the quotes and the colons on this line and the one above",
	},
	tabIndent: {
		"A tab is used as indentation",
		"YAML does not allow tabs where the indentation of a line counts.",
		"indent with spaces",
	},
	badSeparator: {
		"Something follows a document separator",
		"kubectl starts a new document at each line that begins with ---, and refuses such a line when anything but a comment follows. That is also so inside of quoted text.",
		"write --- alone on its line; put a space before a comment",
	},
	directive: {
		"A YAML directive",
		"Lines that begin with % at the start of a document (%YAML 1.2, %TAG) are directives. kubectl cannot read files with directives.",
		"delete the line",
	},
	afterEnd: {
		"Something follows the end of a document",
		"A document ends at a line with \"...\", or where the braces that hold it close. kubectl would silently drop what follows, up to the next line with ---.",
		"begin the next document with a line of its own that says ---",
	},
	duplicateKey: {
		"A key is written twice",
		"The same key is there twice in one mapping. kubectl would silently take the last one.",
		"delete one of the two",
	},
	twoReadings: {
		"A value that can be read in two ways",
		"Kubernetes reads YAML 1.1, other programs read YAML 1.2, and a few unquoted values mean different things to them: yes, no, on, off, y, n are booleans to one and text to the other, dates are text to one and times to the other, and integers too large for a computer's number lose digits. JSON has its own rules for some numbers and escapes. The message shows both readings.",
		"put the value in quotes if text is meant, else write it in a way that has one meaning (true, false, a decimal number)",
	},
	badKey: {
		"A key is not read as it is written",
		"Keys in Kubernetes are text. A key that YAML takes for something else (on, 0x10, 1_000, null) would silently get another name, and a list or a mapping cannot be a key.",
		"put the key in quotes",
	},
	badTag: {
		"A tag that Kubernetes ignores, or that does not fit",
		"Tags (!name before a value) change how some programs read a value. Kubernetes knows only YAML's own (!!str, !!int and so on) and silently ignores others.",
		"delete the tag; put the value in quotes if text is meant",
	},
	noJSONValue: {
		"A value that has no JSON",
		"Infinity (.inf) and not-a-number (.nan) cannot be sent to the API server, which speaks JSON.",
		"put the value in quotes if text is meant",
	},
	textNotKept: {
		"The text cannot be kept as it is",
		"The managed file keeps the author's own text, with the comments in front of the object moved behind its first line. Here the moved text would not be read as the same values, so nothing is written.",
		"move the comments in front of the object to another place",
	},

	tooManyDocuments: {
		"The file has too many documents",
		"A raw file may have 50,000 documents, unless limits.documents in the config says otherwise.",
		"split it into several files",
	},

	notMapping: {
		"The document is not an object",
		"An object of Kubernetes is a mapping with apiVersion, kind and metadata. This document is text, a number, a list or null.",
		"write an object, or delete the document",
	},
	badAPIVersion: {
		"apiVersion is missing or not one",
		"apiVersion is text: the API group, a slash and the version, as in wiring.githedgehog.com/v1beta1.",
		"write apiVersion: with the group and the version",
	},
	badKind: {
		"kind is missing or not one",
		"kind is text: the object's kind, as in Switch.",
		"write kind: with the object's kind",
	},
	noName: {
		"metadata.name is missing or not text",
		"Each object has a name, as text. Numbers, true and false must be in quotes.",
		"write name: below metadata:, with the name as text (in quotes where it is a number)",
	},
	badName: {
		"metadata.name is not a valid name",
		"A name is up to 253 lower case letters, digits, - and . (a DNS subdomain, RFC 1123), where each part between dots begins and ends with a letter or digit.",
		"choose a name of lower case letters, digits, - and .",
	},
	nameTooLong: {
		"The name is too long for a file",
		"The managed file is called after the object, and file names have at most 255 bytes: a name has at most 250.",
		"choose a name of at most 250 characters",
	},
	badNamespace: {
		"metadata.namespace is not a valid namespace",
		"A namespace is text of up to 63 lower case letters, digits and - (a DNS label, RFC 1123).",
		"correct the namespace, or leave it out for the fabric's own",
	},
	generatedName: {
		"generateName is used",
		"With generateName each apply would create one more object. Objects in git have names.",
		"write name: instead of generateName:",
	},
	badStringMap: {
		"A label or annotation is not text",
		"The values of labels and annotations are text. Numbers, true and false must be in quotes.",
		"put the value in quotes",
	},
	isList: {
		"A list of objects",
		"A List holds other objects. Each object gets a managed file of its own, so each is written as a document of its own.",
		"write each of the items as a document, with --- between them",
	},
	serverMetadata: {
		"Metadata that only the API server sets",
		"resourceVersion, uid and managedFields come from an object that was read from a cluster. Applied again they are refused or cause conflicts.",
		"delete the line",
	},
	twiceInFile: {
		"The same object is written twice in the file, with different content",
		"Within one file there is no saying which of the two is meant. (Across files the last one wins.)",
		"keep one of the two",
	},
	notOneObject: {
		"A managed file does not hold exactly one object",
		"Each managed file holds one object.",
		"leave one object in it; put others into raw/",
	},
	wrongPath: {
		"A managed file lies at the wrong path",
		"The path of a managed file follows from its object: managed/<plural>/<name>.yaml, or managed/<plural>/<namespace>/<name>.yaml outside of the fabric's own namespace.",
		"move the file, or put it into raw/ and delete it here",
	},
	badMetadata: {
		"Metadata that the API server refuses",
		"Keys of labels and annotations are up to 63 letters, digits, -, _ and . that begin and end with a letter or digit, with a DNS name and a slash before them if need be; values of labels are such text or empty; all annotations together have at most 256 KiB. Finalizers and owner references have forms of their own. The message is the API server's.",
		"correct it as the message says",
	},
	badEnsure: {
		"The annotation ensure does not say absent, or stands in a managed file",
		"A document in raw/ with the annotation hhwatchd.githedgehog.com/ensure: absent removes its managed file, and with pruning on the object. The annotation has no other value, and no meaning in a managed file, which would itself have to be removed.",
		"write absent, or delete the annotation; to remove an object with git, delete its managed file",
	},

	groupNotAllowed: {
		"The API group is not allowed",
		"A fabric accepts the kinds that people write for Hedgehog: those of its groups wiring, vpc and gateway.githedgehog.com, and those that kinds in the fabric's config adds.",
		"use one of the allowed groups, or add the kind to kinds in the fabric's config",
	},
	kindNotAllowed: {
		"The kind is not allowed",
		"The API group is allowed, but not this kind of it. Kinds are written in CamelCase and in the singular, as in VPCAttachment. Others than Hedgehog's are added by kinds in the fabric's config.",
		"use one of the allowed kinds, or add this one to kinds in the fabric's config",
	},
	notServed: {
		"The version is not served",
		"The kind is known, but not in this version of its API. Older versions (such as v1alpha2) had other fields; changing only the version may not be enough.",
		"rewrite the object for the version that is served",
	},

	unknownField: {
		"A field that the schema does not have",
		"The kind's schema (its CustomResourceDefinition, from the cluster or from the directory in the config) does not know the field at this place. Usually it is misspelled, or stands at the wrong depth. The API server would refuse the object, or drop the field.",
		"correct the field's name or its indentation, or delete it",
	},
	wrongType: {
		"A value of the wrong type",
		"The kind's schema asks for another type of value here: text, an integer, a number, true or false, a list or a mapping. Quotes make text of a number; without them 10.0 is a number.",
		"write a value of the type that is needed",
	},
	missingField: {
		"A field is missing",
		"The kind's schema requires a field that is not there, and has no default for it.",
		"add the field",
	},
	valueNotAllowed: {
		"A value that the schema does not allow",
		"The type of the value is right, but not the value: it is not one of those that are listed, out of range, too long or too short, does not match a pattern or a format, or stands twice in a list that holds each value once. The message is that of the API server's own validation.",
		"write a value that is allowed",
	},
	brokenRule: {
		"A rule of the schema is broken",
		"The kind's schema has rules (x-kubernetes-validations, written in CEL) that relate fields to each other, or to what they were before. The message is that of whoever wrote the rule. Rules are looked at only where the rest of the object fits its schema.",
		"change the object so that the rule holds",
	},
	versionNotServed: {
		"The cluster does not serve this version of the kind",
		"The kind's CustomResourceDefinition serves other versions of it. Other versions may have other fields; changing only the version may not be enough.",
		"rewrite the object for a version that is served",
	},

	noObjectThere: {
		"An object that is referred to is not there",
		"The object names another one (a connection its switches and servers, a VPCAttachment its VPC and its connection, a peering its VPCs, a switch its groups) that is neither managed nor among the files that came with this one. Files that come together are judged together, whatever their order; a file that refers to what a rejected one would have brought is rejected with it. It is only a warning where git holds no object of that kind at all (as with the wiring of a fabric that its installer made), and where Hedgehog's own admission does not ask for the object.",
		"correct the name; or add the object, in this file or in one that comes with it, and drop this one again",
	},
	noSubnet: {
		"A VPC does not have the subnet",
		"The object names a subnet that its VPC does not have.",
		"correct the name, or add the subnet to the VPC",
	},
	malformedReference: {
		"Text that is not in the form that it has to have",
		"Ports are written DEVICE/PORT (leaf-01/E1/5), subnets of a VPC in an attachment VPC/SUBNET, and prefixes ADDRESS/LENGTH (10.0.1.0/24). The schema takes any text here; the fabric does not.",
		"write it in that form",
	},
	portTaken: {
		"A port is used by two connections",
		"Each port of a switch, server or gateway belongs to one connection. (leaf-01/E1/4/1 is the first part of port leaf-01/E1/4 where that is broken out, and the same port.) Of two files that come together the later one is rejected.",
		"use another port; or change the other connection first, or in the same file",
	},
	subnetOverlaps: {
		"A subnet overlaps another one",
		"Within an IPv4Namespace the subnets of all VPCs are apart from each other. Of two files that come together the later one is rejected.",
		"use another prefix, or another IPv4Namespace",
	},
	subnetOutside: {
		"A subnet is outside of its IPv4Namespace",
		"The subnets of a VPC lie within the prefixes of its IPv4Namespace (the one called default, where the VPC names none), if git holds that.",
		"use a prefix within the namespace, or extend the namespace",
	},
	vlanTaken: {
		"A VLAN is used twice",
		"Within a VLANNamespace each VLAN belongs to one subnet of one VPC. Of two files that come together the later one is rejected.",
		"use another VLAN",
	},
	vlanOutside: {
		"A VLAN is outside of its VLANNamespace",
		"The VLANs of a VPC lie within the ranges of its VLANNamespace (the one called default, where the VPC names none), if git holds that.",
		"use a VLAN within the ranges, or extend the namespace",
	},
	takenAway: {
		"Others refer to what is taken away",
		"The document removes an object, or a subnet of a VPC, that others of the fabric name. Documents that come together are judged together: they may be removed, or changed, in any order. It is only a warning where Hedgehog's own admission would let the object be deleted, as it does a connection that has attachments, and where it is a subnet.",
		"remove or change the others, before or in the same drop",
	},

	refusedByCluster: {
		"The fabric's cluster refuses the object",
		"Before anything is committed, the fabric's API server was asked by a dry run of applying the object, and refused it: an admission webhook (Hedgehog's own, or another one), a ValidatingAdmissionPolicy, or the validation of its kind. The message is in the server's own words. It is asked only about objects of which it can judge while it does not have the others of the delivery, and only what it says of the object counts: where it is away, slow or lacks a right, the file goes on, and applying it tells. What was refused is not asked about again by itself. The key admission of a fabric in the config turns that into a warning, or off.",
		"change the object as the message says, or put right in the cluster what it is about, and drop the file again",
	},
}

// Explain returns a short page about a code, for a person at a terminal, and
// whether there is such a code.
func Explain(code string) (string, bool) {
	p, ok := table[code]
	if !ok {
		return "", false
	}
	return fmt.Sprintf("%s: %s\n\n%s\n\nWhat to do: %s.\n", code, p.title, p.explanation, p.remedy), true
}
