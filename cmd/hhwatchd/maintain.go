// SPDX-License-Identifier: Apache-2.0

package main

import "context"

// maintain does a piece of the maintenance of the clone, in the time in which
// no trigger waits, and reports whether there may be more to do. What it does
// is bounded, so that a trigger that comes meanwhile does not wait for long. It
// looks for work only where the branch has moved.
func (r *repository) maintain(ctx context.Context) (more bool) {
	if r.clone == nil {
		return false
	}
	head, err := r.clone.Head()
	if err != nil || head == r.maintained {
		return false // an error is the next cycle's, which meets it too
	}
	worked, err := r.clone.Maintain(ctx)
	if err != nil && err.Error() != r.unmaintained {
		r.log.Error("the clone is not kept in order; this costs speed and disk space only", "error", err)
	}
	r.unmaintained = ""
	if err != nil {
		r.unmaintained = err.Error()
	}
	if !worked {
		r.maintained = head
	}
	return worked
}
