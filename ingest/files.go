// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// atOnce is how many bytes of documents are read at the same time, unless one
// alone has more. So however many CPUs read, they take no more memory than the
// largest document does.
const atOnce = 128 << 10

// An openFile is a file of which some documents are read.
type openFile struct {
	problems *problems
	docs     []document
	objects  []Object
	index    map[string]int  // of the first object at a managed path
	differ   map[string]bool // managed paths that are written with different content
	looked   []string        // managed paths at which schemas made it look
}

// A task is to read one document. What there is of it is kept apart until it is
// the document's turn: others are read meanwhile.
type task struct {
	of       *openFile
	doc      document
	problems problems
	object   Object
	ok       bool   // there is an object
	looked   string // the managed path that the object was compared with; "" for none
}

// read reads files, their documents on all CPUs, and calls done with each object
// that is found. Managed and done are called from several goroutines, all of
// which have ended when it returns. What it returns does not depend on their
// order as long as what managed returns does not.
func (p Policy) read(files []File, managed func(path string) []byte, done func(*Object)) []*openFile {
	all := make([]*openFile, len(files))
	var tasks []task
	size := 0
	flush := func() {
		onAllCPUs(len(tasks), func(i int) { p.do(&tasks[i], managed, done) })
		for i := range tasks {
			tasks[i].of.take(&tasks[i])
		}
		clear(tasks)
		tasks, size = tasks[:0], 0
	}
	for i, f := range files {
		o := p.open(f)
		all[i] = o
		for _, doc := range o.docs {
			if len(tasks) > 0 && size+len(doc.body) > atOnce {
				flush()
			}
			if o.problems.more {
				break // nothing that follows could still be listed
			}
			tasks = append(tasks, task{of: o, doc: doc, problems: problems{file: f.Path}})
			size += len(doc.body)
		}
	}
	flush()
	for _, o := range all {
		o.close()
	}
	return all
}

// onAllCPUs calls do for 0 to n-1, from as many goroutines as there are CPUs, and
// returns when all have ended.
func onAllCPUs(n int, do func(i int)) {
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			do(i)
		}
	}
	var others sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}

// open looks at a file as a whole, and cuts it into documents.
func (p Policy) open(f File) *openFile {
	o := &openFile{problems: &problems{file: f.Path}}
	if !hasYAMLName(f.Path) {
		o.problems.add(Problem{Code: badFileName, Message: "the file's name does not end in .yaml, .yml or .json"})
		return o
	}
	if size := max(f.Size, int64(len(f.Data))); size > p.limits().File {
		o.problems.add(Problem{Code: fileTooLarge,
			Message: fmt.Sprintf("the file has %d bytes, the most is %d", size, p.limits().File)})
		return o
	}
	docs := documents(f.Data, o.problems)
	if n := len(docs); n > p.limits().Documents {
		o.problems.add(Problem{Code: tooManyDocuments,
			Message: fmt.Sprintf("the file has %d documents, the most is %d", n, p.limits().Documents)})
		return o
	}
	if len(docs) == 0 && len(o.problems.list) == 0 {
		o.problems.add(Problem{Code: noObject, Message: "the file holds no object"})
	}
	o.docs = docs
	o.objects = make([]Object, 0, len(docs))
	o.index = make(map[string]int, len(docs))
	o.differ = make(map[string]bool)
	return o
}

// do reads a document.
func (p Policy) do(t *task, managed func(string) []byte, done func(*Object)) {
	look := managed
	if managed != nil {
		look = func(path string) []byte {
			t.looked = path
			return managed(path)
		}
	}
	if t.object, t.ok = p.readDocument(t.doc, look, &t.problems); t.ok {
		done(&t.object)
	}
}

// take adds what was found in the next document of the file.
func (o *openFile) take(t *task) {
	if o.problems.more {
		return
	}
	for _, p := range t.problems.list {
		o.problems.add(p)
	}
	o.problems.more = o.problems.more || t.problems.more
	o.problems.warnings = append(o.problems.warnings, t.problems.warnings...)
	if t.looked != "" {
		o.looked = append(o.looked, t.looked)
	}
	if !t.ok {
		return
	}
	if i, twice := o.index[t.object.Path]; !twice {
		o.index[t.object.Path] = len(o.objects)
	} else if !bytes.Equal(o.objects[i].Text, t.object.Text) {
		o.differ[t.object.Path] = true
	}
	o.objects = append(o.objects, t.object)
}

// close adds what is only seen when all of the file is read.
func (o *openFile) close() {
	if len(o.differ) > 0 {
		for _, obj := range o.objects {
			if o.differ[obj.Path] {
				o.problems.add(Problem{Document: obj.Document, Line: obj.Line, Code: twiceInFile,
					Message: fmt.Sprintf("%s is written more than once in the file, with different content", obj.ID)})
			}
		}
	}
	o.docs, o.index, o.differ = nil, nil, nil
}

// documents cuts a file into documents, of which the reader can take each on
// its own.
func documents(data []byte, ps *problems) []document {
	// kubectl decodes UTF-16 by its byte order mark and replaces what is not
	// UTF-8; neither leaves what the file's bytes say in git.
	if !utf8.Valid(data) {
		ps.add(notUTF8At(data))
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if bytes.IndexByte(data, '\r') >= 0 {
		data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		// kubectl ends the last line too. It matters to block scalars.
		data = append(bytes.Clone(data), '\n')
	}
	docs := split(data, ps)
	for i := range ps.list {
		// What stands behind the last document belongs to it.
		ps.list[i].Document = min(ps.list[i].Document, len(docs))
	}
	if hasSuspects(data) {
		badCharacters(data, docs, ps)
	}
	return docs
}

func hasYAMLName(path string) bool {
	return strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".yml") || strings.HasSuffix(path, ".json")
}

func notUTF8At(data []byte) Problem {
	p := Problem{Code: notUTF8, Line: 1, Column: 1}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		p.Message = "the file is UTF-16"
		return p
	}
	for {
		r, size := utf8.DecodeRune(data)
		if r == utf8.RuneError && size <= 1 {
			p.Message = fmt.Sprintf("the byte 0x%02x is not UTF-8", data[0])
			return p
		}
		if r == '\n' {
			p.Line, p.Column = p.Line+1, 0
		}
		p.Column++
		data = data[size:]
	}
}
