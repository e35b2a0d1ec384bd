// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hhwatchd/hhwatchd/ingest"
	"github.com/hhwatchd/hhwatchd/journal"
)

// A verdict is what validate says of a file.
type verdict struct {
	File     string            `json:"file"`
	OK       bool              `json:"ok"`
	Objects  []string          `json:"objects,omitempty"`
	Problems []journal.Problem `json:"problems,omitempty"`
	Warnings []journal.Problem `json:"warnings,omitempty"`

	lines []string // instead, for people
}

func (o *options) verdictOf(s *ingest.Step) verdict {
	v := verdict{File: s.File, OK: len(s.Problems) == 0}
	if o.output == "json" {
		v.Problems, v.Warnings = problems(s.Problems), problems(s.Warnings)
		for _, obj := range s.Objects {
			v.Objects = append(v.Objects, obj.ID.String())
		}
		return v
	}
	if v.OK {
		v.lines = append(v.lines, fmt.Sprintf("%s: good: %s", s.File, plural(len(s.Objects), "object")))
	}
	for _, p := range s.Problems {
		v.lines = append(v.lines, p.String())
	}
	for _, p := range s.Warnings {
		v.lines = append(v.lines, "warning: "+p.String())
	}
	return v
}

// validateFiles gives the verdict on each file: on its own, unless f is a fabric
// of the config. Then they are held against each other and what the fabric
// holds, in its place.
func (o *options) validateFiles(w io.Writer, cfg *Config, f *FabricConfig, args []string) error {
	names, err := inputsIn(args)
	if err != nil {
		return err
	}
	// Here the schemas have to be in order: nobody reads the status of a hook.
	schemas := newSchemas(cfg, f)
	if _, trouble := schemas.state(); trouble != "" {
		return errors.New(trouble)
	}
	verdicts := []verdict{}
	bad := false
	lines := bufio.NewWriter(w)
	show := func(v verdict) {
		bad = bad || !v.OK
		if o.output == "json" {
			verdicts = append(verdicts, v)
		}
		for _, line := range v.lines {
			fmt.Fprintln(lines, line)
		}
	}
	most := cmp.Or(int64(cfg.Limits.File), ingest.DefaultLimits.File)
	if rc, _ := cfg.fabric(f.Name); rc != nil {
		err = o.validateTogether(cfg, rc, f, schemas.current(), names, most, show)
	} else {
		err = o.validateEach(schemas.current(), names, most, show)
	}
	if err := errors.Join(lines.Flush(), err); err != nil {
		return err
	}
	if o.output == "json" {
		if err := printJSON(w, verdicts); err != nil {
			return err
		}
	}
	if bad {
		return &exitError{code: exitFailed}
	}
	return nil
}

func (o *options) validateTogether(cfg *Config, rc *RepositoryConfig, f *FabricConfig, policy ingest.Policy, names []string, most int64, show func(verdict)) error {
	files := make([]ingest.File, len(names))
	for i, name := range names {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		files[i], err = readInput(file, most)
		file.Close()
		if err != nil {
			return err
		}
	}
	plan, err := planBeside(cfg, rc, f, policy, files)
	for i := range plan.Files {
		show(o.verdictOf(&plan.Files[i]))
	}
	return err
}

// smallFile is the size up to which files are read at the same time. Of larger
// ones only one is in memory.
const smallFile = 128 << 10

// validateEach gives the verdict on each file as if it were alone, on all CPUs,
// and shows them in order.
func (o *options) validateEach(policy ingest.Policy, names []string, most int64, show func(verdict)) error {
	var large sync.Mutex
	one := func(name string) ([]verdict, error) {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() || info.Size() > smallFile {
			large.Lock()
			defer large.Unlock()
		}
		f, err := readInput(file, most)
		if err != nil {
			return nil, err
		}
		plan, err := policy.Plan([]ingest.File{f}, func(string) ([]byte, bool, error) { return nil, false, nil }, nil)
		if err != nil {
			return nil, err
		}
		var verdicts []verdict
		for i := range plan.Files {
			verdicts = append(verdicts, o.verdictOf(&plan.Files[i]))
		}
		return verdicts, nil
	}

	workers := runtime.GOMAXPROCS(0)
	for group := range slices.Chunk(names, 64*workers) {
		verdicts, errs := make([][]verdict, len(group)), make([]error, len(group))
		var next atomic.Int64
		var wait sync.WaitGroup
		for range workers {
			wait.Go(func() {
				for i := int(next.Add(1)) - 1; i < len(group); i = int(next.Add(1)) - 1 {
					verdicts[i], errs[i] = one(group[i])
				}
			})
		}
		wait.Wait()
		for i := range group {
			if errs[i] != nil {
				return errs[i]
			}
			for _, v := range verdicts[i] {
				show(v)
			}
		}
	}
	return nil
}

// inputsIn lists the files that are given, and in directories those that would
// be input.
func inputsIn(args []string) (names []string, err error) {
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			names = append(names, arg)
			continue
		}
		err = filepath.WalkDir(arg, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(arg, name)
			if d.Type().IsRegular() && ingest.IsInput(filepath.ToSlash(rel)) {
				names = append(names, name)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return names, nil
}

// readInput reads a file, unless it has more than most bytes.
func readInput(file *os.File, most int64) (ingest.File, error) {
	f := ingest.File{Path: filepath.ToSlash(file.Name())}
	info, err := file.Stat()
	if err != nil {
		return f, err
	}
	if info.Size() > most {
		f.Size = info.Size()
		return f, nil
	}
	data := bytes.NewBuffer(make([]byte, 0, info.Size()+bytes.MinRead)) // a pipe has no size, and may have more
	if _, err := data.ReadFrom(io.LimitReader(file, most+1)); err != nil {
		return f, err
	}
	if int64(data.Len()) > most {
		f.Size = most + 1
		return f, nil
	}
	f.Data = data.Bytes()
	return f, nil
}
