package record_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Two masters were cut off from each other. One heard of a new VM, on the other
// an operator drained the node. When they meet, both stand, on both sides.
func ExampleJoin() {
	report := record.Report{NodeID: "node-1", Boot: 1, Seq: 1, Profile: record.Profile{Hostname: "berlin-7"}}
	before, _ := record.Accept(record.State{}, report, record.Acceptance{Now: 9_000_000})

	// One side of the split:
	report.Seq, report.VMs = 2, []record.VM{{SID: "vm-1", State: "running"}}
	delta, _ := record.Accept(before, report, record.Acceptance{Now: 9_000_500})
	one := record.Join(before, delta)

	// The other side, whose clock is an hour behind:
	other := record.Join(before, before.Set(9_000_500-3_600_000, "master-b", "ann", record.FieldDrain, "1"))

	merged := record.Join(one, other)
	node := record.View("node-1", merged)
	fmt.Println(node.Hostname, len(node.VMs), "VM, drained:", node.Drained)
	fmt.Println("same on both sides:", merged.Equal(record.Join(other, one)))
	// Output:
	// berlin-7 1 VM, drained: true
	// same on both sides: true
}

// A report that leaves a field out keeps what is known; null erases it. The same
// report once more is no news.
func ExampleAccept() {
	var known record.State
	for i, in := range []string{
		`{"node_id":"node-1","boot":1,"seq":1,"hostname":"berlin-7","version":"1.0","labels":{"zone":"eu"}}`,
		`{"node_id":"node-1","boot":1,"seq":2,"version":"1.1","labels":null}`,
		`{"node_id":"node-1","boot":1,"seq":2,"version":"1.1","labels":null}`,
	} {
		var report record.Report
		if err := json.Unmarshal([]byte(in), &report); err != nil {
			fmt.Println(err)
			return
		}
		delta, err := record.Accept(known, report, record.Acceptance{Now: int64(1000 * (i + 1))})
		if err != nil {
			fmt.Println(err)
			return
		}
		known = record.Join(known, delta)
		node := record.View("node-1", known)
		fmt.Println(node.Hostname, node.Version, node.Labels, "news:", !delta.IsZero())
	}
	// Output:
	// berlin-7 1.0 map[zone:eu] news: true
	// berlin-7 1.1 map[] news: true
	// berlin-7 1.1 map[] news: false
}

// An operator removes a node. Its old boot is refused, a restart registers anew.
func ExampleState_Remove() {
	report := record.Report{NodeID: "node-1", Boot: 7, Seq: 1}
	known, _ := record.Accept(record.State{}, report, record.Acceptance{Now: 1000})
	known = record.Join(known, known.Remove(2000, "master-a", "ann", "broken disk"))

	report.Seq = 2
	_, err := record.Accept(known, report, record.Acceptance{Now: 3000})
	var refused *record.RefusedError
	if errors.As(err, &refused) {
		fmt.Println("refused:", refused.Reason)
	}

	report.Boot, report.Seq = 8, 1
	delta, err := record.Accept(known, report, record.Acceptance{Now: 4000})
	fmt.Println("removed:", record.Join(known, delta).Removed(), err)
	// Output:
	// refused: removed
	// removed: false <nil>
}

func ExampleLiveness() {
	listening := record.Listening{For: time.Hour, OfflineAfter: 30 * time.Second}
	status, reason := record.Liveness([]record.Observer{
		{Master: "master-a", AgeS: 95, Reachable: true},
		{Master: "master-b", AgeS: 1.2, Reachable: true},
	}, listening)
	fmt.Printf("%s %q\n", status, reason)
	status, reason = record.Liveness([]record.Observer{{Master: "master-b", AgeS: 31}}, listening)
	fmt.Printf("%s %q\n", status, reason)
	// Output:
	// online ""
	// suspect "the master that heard it last is gone: master-b"
}
