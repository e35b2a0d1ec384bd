// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hhwatchd/hhwatchd/checkout"
	"github.com/hhwatchd/hhwatchd/journal"
)

func journalCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "journal",
		Short: "Check the journal",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(verifyCommand(o))
	return cmd
}

func verifyCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that the journal is whole, and agrees with git",
		Long: `Check that the journal is whole, and agrees with git: each record against its
hash, the chain of the hashes, each checkpoint against the records before it;
what the journal says that each fabric should hold against managed/ in the
clone; and what the commits of the branch say of the journal against what it is
now, which shows a journal that was cut off or rewritten.

It changes nothing, and works with or without a daemon running. Exit code 0 if
all is well, 1 if not.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			doc, err := verify(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if o.output == "json" {
				err = printJSON(cmd.OutOrStdout(), doc)
			} else {
				printVerify(cmd.OutOrStdout(), doc)
			}
			if err == nil && !doc.Clean {
				err = &exitError{code: exitFailed}
			}
			return err
		},
	}
	o.outputFlag(cmd)
	return cmd
}

// verifyDoc is what `hhwatchd journal verify -o json` prints.
type verifyDoc struct {
	Clean    bool      `json:"clean"`
	Dir      string    `json:"dir"`
	Journal  string    `json:"journal"` // identity
	Segments int       `json:"segments"`
	Bytes    int64     `json:"bytes"`
	Records  int       `json:"records"`
	First    uint64    `json:"first"`
	Last     uint64    `json:"last"`
	Head     string    `json:"head"`              // hash of the last record
	Expired  uint64    `json:"expired,omitempty"` // the last record that was removed, being past the bounds
	Oldest   time.Time `json:"oldest,omitzero"`
	Newest   time.Time `json:"newest,omitzero"`

	Damage       []journal.Damage   `json:"damage,omitempty"`
	Tail         *journal.Damage    `json:"tail,omitempty"` // an append that a crash cut short
	Fabrics      []verifyFabric     `json:"fabrics,omitempty"`
	Repositories []verifyRepository `json:"repositories,omitempty"`
}

// verifyFabric compares the inventory of a fabric with managed/ in git.
type verifyFabric struct {
	Name      string         `json:"name"`
	Commit    string         `json:"commit,omitempty"` // up to which the journal accounts for the branch
	Objects   int            `json:"objects"`
	Disagrees []disagreement `json:"disagrees,omitempty"`
	Note      string         `json:"note,omitempty"`  // why there is nothing to compare
	Error     string         `json:"error,omitempty"` // why it could not be compared
}

// verifyRepository compares the journal with what the commits say of it.
type verifyRepository struct {
	Name     string        `json:"name"`
	Records  int           `json:"records"`           // that commits vouch for, and that are as they say
	Newest   uint64        `json:"newest,omitempty"`  // the newest of these
	Expired  int           `json:"expired,omitempty"` // records that commits vouch for, and that were removed
	Others   int           `json:"others,omitempty"`  // records of other journals that commits vouch for
	Disagree []verifyWords `json:"disagree,omitempty"`
	Note     string        `json:"note,omitempty"`
	Error    string        `json:"error,omitempty"`
}

// verifyWords is what a commit says of a record, and what is there.
type verifyWords struct {
	Commit string `json:"commit"`
	Seq    uint64 `json:"seq"`
	Hash   string `json:"hash"`
	Found  string `json:"found,omitempty"` // hash of the record, "" where it is not there
	Other  string `json:"other,omitempty"` // the other journal that the commit speaks of, though this one says that it made it
}

// tailTries is how often an incomplete last append is looked at again: a daemon
// may be writing it.
const tailTries = 3

func verify(ctx context.Context, cfg *Config) (*verifyDoc, error) {
	dir := cfg.journalDir()
	if _, err := os.Stat(dir); err != nil {
		return nil, noJournal(cfg, err)
	}
	// The commits are read before the journal, which is always ahead of them.
	doc := &verifyDoc{Dir: dir, Clean: true}
	words := make([]map[witness]checkout.Hash, len(cfg.Repositories))
	heard := map[uint64]string{} // hashes of the records that commits speak of
	for i := range cfg.Repositories {
		rc := &cfg.Repositories[i]
		doc.Repositories = append(doc.Repositories, verifyRepository{Name: rc.Name})
		var err error
		words[i], err = witnesses(ctx, cfg.cloneDir(rc.Name), rc.Branch)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			doc.Repositories[i].Note = "not cloned yet"
		case err != nil:
			doc.Repositories[i].Error = err.Error()
		}
		for w := range words[i] {
			heard[w.seq] = ""
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	made := map[string]bool{} // commits that the journal says were made here
	see := func(r journal.Record) {
		if _, ok := heard[r.Seq]; ok {
			heard[r.Seq] = r.Hash
		}
		if r.Step == journal.StepCommit || r.Step == journal.StepReplan {
			for _, c := range r.Commits {
				made[c] = true
			}
		}
	}
	rep, err := journal.Verify(dir, see)
	for try := 1; err == nil && rep.Tail != nil && try < tailTries; try++ {
		rep, err = journal.Verify(dir, see)
	}
	if err != nil {
		return nil, err
	}
	doc.Journal, doc.Segments, doc.Bytes, doc.Records = rep.Journal, rep.Segments, rep.Bytes, rep.Records
	doc.First, doc.Last, doc.Head, doc.Expired = rep.First, rep.Last, rep.Head, rep.Expired
	doc.Oldest, doc.Newest, doc.Damage, doc.Tail = rep.Oldest, rep.Newest, rep.Damage, rep.Tail
	doc.Clean = len(rep.Damage) == 0 && rep.Tail == nil

	for i := range cfg.Repositories {
		rc, v := &cfg.Repositories[i], &doc.Repositories[i]
		v.hear(words[i], &rep, heard, made)
		doc.Clean = doc.Clean && v.Error == "" && len(v.Disagree) == 0
		for _, f := range compareInventory(cfg, rc, rep.Inventory) {
			doc.Clean = doc.Clean && f.Error == "" && len(f.Disagrees) == 0
			doc.Fabrics = append(doc.Fabrics, f)
		}
	}
	return doc, nil
}

// witnesses lists what the commits of a branch say of journals, each word with
// the first commit that says it.
func witnesses(ctx context.Context, dir, branch string) (map[witness]checkout.Hash, error) {
	clone, err := checkout.OpenReader(dir, branch)
	if err != nil {
		return nil, err
	}
	defer clone.Close()
	words := map[witness]checkout.Hash{}
	for c, err := range clone.Commits() {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return nil, err
		}
		if w, ok := witnessOf(c); ok {
			words[w] = c.Hash // the earliest comes last
		}
	}
	return words, nil
}

// hear compares the words of the commits with the journal.
func (v *verifyRepository) hear(words map[witness]checkout.Hash, rep *journal.Report, hashes map[uint64]string, made map[string]bool) {
	id := rep.Journal[:min(len(rep.Journal), witnessID)]
	for w, commit := range words {
		hash := hashes[w.seq]
		switch {
		case w.journal != id && made[string(commit)]:
			// Who changes the first record gives the journal another identity.
			v.Disagree = append(v.Disagree, verifyWords{Commit: string(commit), Seq: w.seq, Hash: w.hash, Other: w.journal})
		case w.journal != id:
			v.Others++
		case hash == "" && w.seq <= rep.Expired:
			v.Expired++
		case hash == w.hash:
			v.Records++
			v.Newest = max(v.Newest, w.seq)
		default:
			v.Disagree = append(v.Disagree, verifyWords{Commit: string(commit), Seq: w.seq, Hash: w.hash, Found: hash})
		}
	}
	slices.SortFunc(v.Disagree, func(a, b verifyWords) int { return cmp.Compare(a.Seq, b.Seq) })
}

// compareInventory compares what the journal says that each fabric of a
// repository should hold with managed/, in the commit that the journal accounts
// for: a daemon may be ahead of it at this moment.
func compareInventory(cfg *Config, rc *RepositoryConfig, inv *journal.Inventory) []verifyFabric {
	out := make([]verifyFabric, len(rc.Fabrics))
	clone, err := checkout.OpenReader(cfg.cloneDir(rc.Name), rc.Branch)
	if err == nil {
		defer clone.Close()
	}
	at := checkout.Hash(inv.Recorded(rc.Name))
	for i := range rc.Fabrics {
		f := &rc.Fabrics[i]
		n := inv.Counts(f.Name)
		v := &out[i]
		*v = verifyFabric{Name: f.Name, Commit: string(at), Objects: n.Pending + n.Applied + n.Failed}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			v.Note = "not compared: the repository is not cloned yet"
			continue
		case err != nil:
			v.Error = err.Error()
			continue
		case at == "":
			v.Note = "not compared: the journal has no commit of the repository yet"
			continue
		}
		if _, err := clone.Commit(at); errors.Is(err, checkout.ErrNotFound) {
			v.Note = "not compared: the commit is not in the clone any more; the next cycle accounts for another one"
			continue
		}
		wrong, err := disagreements(clone, at, f, newSchemas(cfg, f).current(), inv)
		if err != nil {
			v.Error = err.Error()
			continue
		}
		v.Disagrees = wrong
		if tree, err := treeOf(clone, at, f); err != nil {
			v.Error = err.Error()
		} else if got := inv.Tree(f.Name); got != tree && len(wrong) == 0 {
			v.Note = "the next cycle compares it with git"
		}
	}
	return out
}

// printVerify is `hhwatchd journal verify` for people.
func printVerify(w io.Writer, d *verifyDoc) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(what, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", what, fmt.Sprintf(format, args...)) }
	row("journal", "%s", d.Dir)
	if d.Records == 0 {
		row("records", "none")
	} else {
		row("records", "%d to %d in %s, %v, %s to %s", d.First, d.Last, plural(d.Segments, "segment"), Size(d.Bytes),
			d.Oldest.Local().Format(time.DateOnly), d.Newest.Local().Format("2006-01-02 15:04:05"))
	}
	if d.Expired > 0 {
		row("", "1 to %d were removed, being past the bounds of age or size", d.Expired)
	}
	if len(d.Damage) == 0 && d.Records > 0 {
		row("chain", "good, up to %s", d.Head)
	}
	for i := range d.Damage {
		row("DAMAGED", "%v", &d.Damage[i])
	}
	if d.Tail != nil {
		row("TORN", "%v; %d bytes, which the next start moves aside", d.Tail, d.Tail.Bytes)
	}
	for _, f := range d.Fabrics {
		switch {
		case f.Error != "":
			row("FAILED", "%s: the inventory could not be compared: %s", f.Name, f.Error)
			continue
		case f.Note != "":
			row("inventory", "%s: %s", f.Name, f.Note)
			continue
		case len(f.Disagrees) == 0:
			row("inventory", "%s: %s, as in managed/ at %s", f.Name, plural(f.Objects, "object"), short(f.Commit))
		}
		for _, x := range first10(f.Disagrees) {
			row("DISAGREES", "%s: %s: %s", f.Name, x.Object, x.words())
		}
		if n := len(f.Disagrees); n > 10 {
			row("", "and %d more of %s", n-10, f.Name)
		}
		if len(f.Disagrees) > 0 {
			row("", "the next start of hhwatchd brings the inventory in line with git; so does hhwatchd sync")
		}
	}
	for _, r := range d.Repositories {
		switch {
		case r.Error != "":
			row("FAILED", "%s: the commits could not be read: %s", r.Name, r.Error)
			continue
		case r.Note != "":
			row("witness", "%s: %s", r.Name, r.Note)
			continue
		case r.Records > 0:
			row("witness", "%s: the branch vouches for the journal up to record %d", r.Name, r.Newest)
		case len(r.Disagree) == 0:
			row("witness", "%s: no commit speaks of a record that is here", r.Name)
		}
		if r.Others > 0 {
			row("", "%s: some commits speak of other journals: of other hosts, or of one that was here before", r.Name)
		}
		for _, x := range first10(r.Disagree) {
			row("DISAGREES", "%s: %s", r.Name, x.words(d))
		}
		if n := len(r.Disagree); n > 10 {
			row("", "and %d more of %s", n-10, r.Name)
		}
	}
	t.Flush()
}

func first10[T any](s []T) []T { return s[:min(len(s), 10)] }

func (d disagreement) words() string {
	switch {
	case d.Git == "":
		return "the journal has it, managed/ in git does not"
	case d.Inventory == "":
		return "managed/ in git has it, the journal does not"
	}
	return fmt.Sprintf("git has the text %s, the journal %s", short(d.Git), short(d.Inventory))
}

func (v verifyWords) words(d *verifyDoc) string {
	switch {
	case v.Other != "":
		return fmt.Sprintf("commit %s was made here, and vouches for record %d of a journal that began otherwise: the journal was rewritten", short(v.Commit), v.Seq)
	case v.Found != "":
		return fmt.Sprintf("record %d is not what it was when commit %s was made: the journal was rewritten", v.Seq, short(v.Commit))
	case v.Seq > d.Last:
		return fmt.Sprintf("commit %s vouches for record %d, the journal ends with %d: its end was cut off, or an older copy put in its place",
			short(v.Commit), v.Seq, d.Last)
	}
	return fmt.Sprintf("commit %s vouches for record %d, which is not there", short(v.Commit), v.Seq)
}
