// SPDX-License-Identifier: Apache-2.0

package checkout

import "strings"

// The longest name and path that Linux takes (NAME_MAX and PATH_MAX in
// limits.h), in bytes.
const (
	maxName = 255
	maxPath = 4095
)

// checkPath reports why path must not be written to a work tree, or "" if it
// may. It is what git itself refuses to check out, on any system: a clone can
// be copied to one that ignores case or folds names.
func checkPath(path string) (why string) {
	if len(path) > maxPath {
		return "it is too long"
	}
	for name := range strings.SplitSeq(path, "/") {
		if why := checkName(name); why != "" {
			return why
		}
	}
	return ""
}

func checkName(name string) (why string) {
	switch {
	case name == "":
		return "an element of it is empty"
	case name == "." || name == "..":
		return "it has . or .. in it"
	case len(name) > maxName:
		return "an element of it is too long"
	case strings.IndexByte(name, 0) >= 0:
		return "it has a NUL in it"
	case strings.EqualFold(name, ".git"), isHFSDotGit(name), isNTFSDotGit(name):
		return "it stands for .git"
	}
	return ""
}

// isHFSDotGit reports whether name is ".git" to HFS+, which ignores case and
// some code points.
func isHFSDotGit(name string) bool {
	return strings.EqualFold(strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, // zero-width joiners, direction marks
			r >= 0x202a && r <= 0x202e, // embeddings and overrides
			r >= 0x206a && r <= 0x206f, // deprecated format characters
			r == 0xfeff:                // zero-width no-break space
			return -1
		}
		return r
	}, name), ".git")
}

// isNTFSDotGit reports whether name is ".git" to NTFS: in any case, by its
// short name, with dots and spaces after it (which are dropped), or with a
// stream of the file, after a colon. What follows a backslash is a path there.
func isNTFSDotGit(name string) bool {
	for part := range strings.SplitSeq(name, `\`) {
		part, _, _ = strings.Cut(part, ":")
		part = strings.TrimRight(part, " .")
		if strings.EqualFold(part, ".git") || strings.EqualFold(part, "git~1") {
			return true
		}
	}
	return false
}
