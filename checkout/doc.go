// SPDX-License-Identifier: Apache-2.0

// Package checkout is the working clone: the only room that knows git.
//
// A [Clone] follows one branch of one remote. It is driven in small steps,
// each of which can be repeated, and none of which is half done after a crash
// in a way that the next one would not put right:
//
//	c, err := checkout.Open(ctx, checkout.Options{Dir: dir, URL: url, Branch: "main"})
//	head, err := c.RemoteHead(ctx)                      // a poll
//	tip, err := c.Fetch(ctx)                            // what the remote has
//	h, err := c.WriteCommit(tip, changes, who, us, msg) // objects, no more
//	asides, err := c.Advance(ctx, h)                    // the commit point
//	err = c.Push(ctx)                                   // ErrRaced: fetch, and again
//
// # Cost
//
// No step walks the work tree or the repository, except Restore, which looks
// at the directories that it is given. A commit writes its blobs, the trees on
// their paths, and itself. Advance compares the index with a tree with the
// help of the index's own cached trees, and so reads only what differs; a push
// sends the objects that its commits added, large ones as differences. What
// grows with the repository is reading and writing the index file.
//
// Nor does it grow with the age of the clone, as long as [Clone.Maintain] is
// called now and then: what small commits and fetches leave is packed.
//
// # Durability
//
// go-git and git's own defaults leave it to luck what is on disk after a power
// loss. Here the order is: objects are written under temporary names and
// renamed; Advance flushes the file system with one syncfs(2); then the ref is
// written beside, flushed, renamed, and its directory flushed. So whatever a
// ref points to is there. The index and the files of the work tree follow and
// are not flushed: they can be made again from the commit, and are.
//
// # Other users of the clone
//
// A clone is also a place where people work. The files that git locks are
// locked by git's rules, and git finds everything in order: its status is
// clean, the remote and the branch are configured (without credentials), what
// a person staged stays staged. Local edits are set aside before something is
// put in their place, never overwritten. Where input is dropped
// (Options.Inputs), even that is not done: what git does not know stays where
// it is.
//
// The paths in a tree come from whoever can push. Those that git would not
// check out are refused as a whole before anything is changed, no operation
// follows a symbolic link, and a link is itself written as a link.
//
// # Remotes
//
// There are remotes over HTTP and HTTPS, over SSH, and in a directory. All are
// spoken to by this package itself, within the context and within limits of
// its own for a remote that falls silent; the git command is never run. The
// connection is kept between requests, and protocol version 2 is used where
// the server knows it: a poll is then one request of some hundred bytes, however
// many refs there are.
//
// Credentials lie in files that are read when they are needed (see [Auth]), so
// that a rotated one works at the next request. A URL that may hold a secret is
// refused (see [CheckURL]).
//
// A pack is indexed while it comes in and in bounded memory, however large the
// files in it are.
//
// go-git provides the formats of configs, commits and ignore patterns, and finds
// deltas. Its porcelain, its transports and its storage are not used: they walk
// the work tree, cannot be interrupted everywhere, and trust in what a crash
// left.
package checkout
