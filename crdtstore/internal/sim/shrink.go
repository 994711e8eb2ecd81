package sim

import "slices"

// maxShrink bounds how often a failing plan is run again to make it shorter.
const maxShrink = 600

// Shrink returns a plan that fails too and has as few steps as can be found by
// leaving out some, first many at a time, then fewer. It calls run, which says
// whether a plan fails.
func Shrink(p Plan, fails func(Plan) bool) Plan {
	tries := 0
	try := func(q Plan) bool {
		tries++
		if tries > maxShrink || !fails(q) {
			return false
		}
		p = q
		return true
	}
	for _, simpler := range []func(*Plan){
		func(q *Plan) { q.Loss = 0 },
		func(q *Plan) { q.Duplication = 0 },
		func(q *Plan) { q.Skews = make([]int64, q.Masters) },
	} {
		q := p
		simpler(&q)
		try(q)
	}
	for size := max(1, len(p.Steps)/2); ; {
		shorter := false
		for at := 0; at < len(p.Steps); {
			q := p
			q.Steps = slices.Delete(slices.Clone(p.Steps), at, min(at+size, len(p.Steps)))
			if try(q) {
				shorter = true
			} else {
				at += size
			}
		}
		switch {
		case tries > maxShrink:
			return p
		case size > 1:
			size /= 2
		case !shorter:
			return p
		}
	}
}
