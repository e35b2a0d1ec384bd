// SPDX-License-Identifier: Apache-2.0

// Package apply makes a Kubernetes cluster hold the objects that it is given,
// says for each one what became of it, and takes away those that are no
// longer wanted.
//
//	cluster, err := apply.Connect(apply.Config{Kubeconfig: "/etc/hhwatchd/fabric-1.kubeconfig", Namespace: "default"})
//	…
//	err = cluster.Apply(ctx, objects, true, func(r apply.Result) {
//		fmt.Println(r.Kind, r.Name, r.Outcome, r.Err)
//	})
//
// Objects go in by server-side apply, with force, as the field manager
// [Manager]: what a file names is the file's, what it does not name is left to
// others (controllers, defaults, admission webhooks, people).
//
// # Only what differs is sent
//
// A server-side apply that changes nothing costs the API server as much as
// one that does, so the live object is looked at first: in the list of its
// kind, or by itself when the caller knows which few objects changed. An
// object is left alone when the fields that the API server has entered under
// our name in metadata.managedFields are exactly those of the file, and their
// live values are the file's. That needs no schema: whether a list is one
// value or many is to be read from the entry itself. Whoever changes a field
// of ours takes it out of our entry, so a change by hand is seen even where
// values are hard to compare.
//
// Sometimes the entry leaves doubt: it does not say whether an empty map in a
// file stands for "a map, whatever others put into it" or for an empty value,
// nor whether what a list that counts as one value has beyond the file is a
// default or left over from an earlier version of the file. Only then the
// schema of the kind is asked for. If an object still does not compare equal
// after it was sent (a webhook insists on its own idea of a value), the pair
// of file and live object is remembered, and is left alone for as long as
// neither changes.
//
// # What others change
//
// With a [Watch] the cluster says itself when an object is changed or deleted
// that was applied, and of all others it is known that they are as they were:
// see [Watch.Holds]. Only metadata is watched; of an object no more is kept
// than a fingerprint (its generation, and our entry in managedFields) and the
// resource version. What controllers report in its status changes the former
// not, and is of no interest; an object whose fingerprint changes is looked at
// again, and sent if it differs. The result names a field that differed and the
// field manager who has it.
//
// # Order, isolation, failure
//
// Kinds go in the order in which Hedgehog's objects refer to each other (see
// [Sort]), the objects of a kind a few at a time. An object that is refused is
// reported with the server's own words and stops no other. What concerns the
// whole cluster (it does not answer, it does not know us) ends the call with
// one error instead of one for each object; objects without a [Result] were
// not seen to.
//
// The package logs nothing, keeps no goroutine between calls but those of a
// Watch, and takes up changed credentials by itself.
package apply
