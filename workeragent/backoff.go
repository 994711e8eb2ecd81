package workeragent

import (
	"math/rand/v2"
	"time"
)

// backoff spaces out attempts that fail: a random time below a ceiling that
// doubles with each failure ("full jitter", Brooker, "Exponential Backoff And
// Jitter", 2015), so that a thousand agents do not come back in one instant.
type backoff struct {
	floor, base, most time.Duration
}

// delay is the time to wait after the n-th failure in a row, n from 1.
func (b backoff) delay(n int) time.Duration {
	ceiling := b.most
	if shift := n - 1; shift < 20 && b.base<<shift < b.most {
		ceiling = b.base << shift
	}
	if ceiling <= b.floor {
		return b.floor
	}
	return b.floor + rand.N(ceiling-b.floor)
}

// jittered is d give or take a tenth, so that agents that were started together
// do not stay together.
func jittered(d time.Duration) time.Duration {
	tenth := d / 10
	if tenth <= 0 {
		return d
	}
	return d - tenth + rand.N(2*tenth+1)
}
