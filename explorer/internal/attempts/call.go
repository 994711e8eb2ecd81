package attempts

// Call is the state of one call. Its zero value is a call that must not be repeated.
// Its methods must not be called concurrently.
type Call struct {
	// Repeatable: it does no harm twice, or who carries it out knows a repetition.
	Repeatable bool

	open int  // attempts that were begun and have not ended
	lost bool // one that has ended may have been carried out
}

// Next reports whether an attempt may be begun now.
func (c *Call) Next() bool { return c.Repeatable || !c.MayRun() }

// Begin begins an attempt. It reports whether it is a repetition: an earlier one may have
// been carried out, or may yet be.
func (c *Call) Begin() (repetition bool) {
	repetition = c.MayRun()
	c.open++
	return repetition
}

// Ended ends an attempt. lost is whether it has no answer, and the call was sent.
func (c *Call) Ended(lost bool) {
	c.open--
	c.lost = c.lost || lost
}

// Open returns how many attempts have not ended.
func (c *Call) Open() int { return c.open }

// MayRun reports whether an attempt may have been carried out that has no answer, or may
// yet be.
func (c *Call) MayRun() bool { return c.lost || c.open > 0 }
