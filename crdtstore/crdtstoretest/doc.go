// Package crdtstoretest runs several masters in one process, and cuts and mends the
// network between them. It is for the tests of this module and of programs that
// embed a store.
//
// [Start] runs them over real libp2p on the loopback interface. [StartSimulated] runs
// them over a simulated network in a bubble of testing/synctest, where an hour passes
// in seconds, packets are lost and links work in one direction only:
//
//	synctest.Test(t, func(t *testing.T) {
//		c := crdtstoretest.StartSimulated(t, 3, 1, nil)
//		c.Links(func(a, b int) crdtstoretest.Link {
//			return crdtstoretest.Link{Delay: 50 * time.Millisecond, Loss: 0.05}
//		})
//		c.Split(1)
//		time.Sleep(time.Hour)
//		c.Heal()
//		c.WaitEqual()
//	})
//
// In a bubble, time does not pass while a goroutine waits for a sync.Mutex or for
// the disk; so hold no lock while calling a store.
//
// The tests of this package play such scenarios with many nodes and look for what
// was lost: go test ./crdtstore/crdtstoretest -virtual.seeds=100.
package crdtstoretest
