// SPDX-License-Identifier: Apache-2.0

// Package watcher turns what happens in raw directories into settled
// wake-ups, and takes files out of such directories without ever taking half
// of one or losing a byte that somebody wrote.
//
// A raw directory is a letter box: people and programs put files into it with
// whatever they have (cp, mv, scp, rsync, an editor, an SFTP or Samba server),
// at any time, without asking. Nobody can be made to take part in a protocol,
// so everything here works against writers that know nothing of it.
//
// # Waking up
//
// A [Watcher] says that it is time to look. It is wrong in one direction
// only: it may wake for nothing, but what arrived is always followed by a
// wake-up. Its sources are inotify (through fsnotify), a rescan at a fixed
// interval, and files that were found busy ([Watcher.Await]). Events are
// hints: a wake-up carries no path, and whoever receives it looks at the
// directory ([List]). A burst of events is one wake-up ([Settle]).
//
// # Reading
//
// A file may be read when nobody is writing to it. That it was quiet for a
// while is no proof, since slow writers pause. The proof is a read lease
// (fcntl(2), F_SETLEASE with F_RDLCK): the kernel refuses it while any process
// on this host has the file open for writing or mapped writable, and while it
// is held, an open for writing waits until the lease is given back. [Read]
// holds one for as long as it takes to read the file, so what it returns is
// what the last writer left. The signal that tells a lease holder of such a
// waiting process, SIGIO, is one that the Go runtime disregards unless
// [os/signal.Notify] was asked for it; F_GETLEASE tells the same.
//
// A lease can be had on one's own files, on those of others with CAP_LEASE,
// and on local file systems only. Elsewhere the quiet period has to do: a file
// that changed less than that long ago is taken to be still written to.
//
// # Taking files out
//
// Once the content of a file is safe elsewhere, the file has to leave the raw
// directory. Between reading and removing it, somebody may have opened it,
// written to it, or put another file in its place, so removing takes two
// steps with time between them:
//
//   - [Retire] takes the lease again, compares inode, times, size and content
//     with what was read, and renames raw/a/x.yaml to
//     raw/a/.x.yaml.5b3c01aa.spent. If the name turns out to have meant
//     another file by then, or a process waits to write, the rename is
//     undone. From here on, whoever opens raw/a/x.yaml creates a new file.
//   - [Bury], some time later, compares again and unlinks the spent file. A
//     process that had looked the name up just before it was renamed, and got
//     the file open only after the lease was given back, has been there by
//     now: the file is busy or changed, and goes back under its own name, as
//     new input.
//
// After a crash at any point the file is under its own name, or spent, or
// gone with its content safe elsewhere. [Sweep] finds spent files that a
// crash left: those with known content are unlinked, others go back. Hidden
// names are never input, so a spent file is not read by mistake.
//
// [File.Move] takes a file out by moving it elsewhere, under the same rules.
//
// What remains is said plainly. Without a lease, a writer that pauses for
// longer than the quiet period and has the file open all the while is not
// seen; if it goes on after Bury, what it writes then goes with the file.
// With a lease, the same takes a process that the kernel stops between looking
// the name up and opening the file, a matter of nanoseconds, for all the time
// from Retire to Bury.
//
// No path is followed out of its raw directory, and no symbolic link at all.
package watcher
