package main

// stubGrid is what a stub answers to stats and masters, and what is the matter with its
// health, if anything is.
type stubGrid struct{ stats, masters, reason string }

// stubGrids are the stubs of the scripts, by the variable that has the address.
var stubGrids = map[string]stubGrid{
	// A grid that is well; one node is suspect, which is not the masters' matter.
	"MASTER": {
		stats: `{"nodes":{"total":3,"online":2,"suspect":1,"offline":0,"drained":1,"removed":4},
			"total":{"cru":16,"mru":34359738368,"sru":0,"hru":0},"free":{"cru":12.5,"mru":1073741824,"sru":0,"hru":0},
			"by_status":{"online":{"nodes":2,"cru":12,"mru":17179869184,"sru":0,"hru":0,"slices":8},
				"suspect":{"nodes":1,"cru":4,"mru":17179869184,"sru":0,"hru":0,"slices":2},"offline":{"nodes":0,"cru":0,"mru":0,"sru":0,"hru":0,"slices":0}},
			"slices":{"total":10,"free":5},"vms":{"total":2,"by_state":{"running":1,"stopped":1}},
			"masters":{"self":1,"alive":1,"left":1},"convergence":{"in_sync":true,"digest":"ab","lag_s":0,"splits":[]},
			"history":{"epoch":4,"entries":12,"records":7,"bytes":3145728,"live":2097152}}`,
		masters: `{"self":"12D3KooWStub","masters":[` + stubSelf + `,` + stubMaster(`"id":"12D3KooWOther","name":"beta","status":"alive"`) + `,` +
			stubMaster(`"id":"12D3KooWLeft","name":"gamma","status":"left","in_sync":false,"clock_skew_s":-9`) + `]}`,
	},
	// Everything is the matter with it that can be.
	"SICK": {
		stats: `{"nodes":{"total":3,"online":0,"suspect":0,"offline":3,"drained":0,"removed":0},
			"total":{"cru":16,"mru":34359738368,"sru":1099511627776,"hru":0},"free":{"cru":0,"mru":0,"sru":0,"hru":0},
			"by_status":{"online":{"nodes":0,"cru":0,"mru":0,"sru":0,"hru":0,"slices":0},"suspect":{"nodes":0,"cru":0,"mru":0,"sru":0,"hru":0,"slices":0},
				"offline":{"nodes":3,"cru":16,"mru":34359738368,"sru":1099511627776,"hru":0,"slices":8}},
			"slices":{"total":8,"free":0},"vms":{"total":0,"by_state":{}},"conflicts":1,
			"masters":{"self":1,"alive":3,"down":1,"suspect":2,"never_met":4},"convergence":{"in_sync":false,"digest":"ab","lag_s":2.5,"splits":[
				{"master":"12D3KooWOther","name":"beta","since":"2026-01-02T03:04:05Z","lag_s":9,"nodes":1,"unreachable":false,"heard_by":[]},
				{"master":"12D3KooWGone","name":"gamma","since":"2026-01-02T03:04:05Z","lag_s":9,"nodes":4,"unreachable":true,"heard_by":["12D3KooWOther"]},
				{"master":"12D3KooWLost","name":"lost","since":"2026-01-02T03:04:05Z","lag_s":9,"nodes":0,"unreachable":true,"heard_by":["12D3KooWOther"]}]},
			"preservation":{"since":"2026-01-02T03:04:05Z","ends_by":"2026-01-02T03:09:05Z","late":2,"of":3},
			"history":{"epoch":4,"entries":12,"records":1,"bytes":490,"live":80}}`,
		masters: `{"self":"12D3KooWStub","masters":[` + stubSelf + `,` +
			stubMaster(`"id":"12D3KooWOther","name":"beta","status":"alive","nodes":2,"in_sync":false,"lag_s":2.5,"differs":1,"rtt_ms":1.25,"clock_skew_s":-7200.4,
				"hears":0,"partially_connected":true,"reason":"hears 0 of the 3 nodes that alpha hears","settings_differ":["offline-after: 3s there, 30s here","aliases: none there, 1 (digest 0badcafe) here"]`) + `,` +
			stubMaster(`"id":"12D3KooWFast","name":"fast","status":"alive","clock_skew_s":90,"direct":false,"since":"2026-01-02T03:04:05Z"`) + `,` +
			stubMaster(`"id":"12D3KooWTwice","name":"twice","status":"alive","cause":"identity_collision","reason":"two processes have this identity: this one counts; stop the one at 192.0.2.7","since":"2026-01-02T03:04:05Z"`) + `,` +
			stubMaster(`"id":"12D3KooWGone","name":"gamma\u001b[31m","status":"down"`) + `,` +
			stubMaster(`"id":"12D3KooWQuiet","name":"quiet","status":"suspect"`) + `,` +
			stubMaster(`"id":"12D3KooWFar","name":"far","status":"suspect","heard_by":["12D3KooWOther"],"reason":"other masters hear it, this one does not"`) + `,` +
			stubMaster(`"id":"","name":"192.0.2.8","status":"never_met","cause":"unreachable","reason":"no route to host","since":"2026-01-02T03:04:05Z"`) + `,` +
			stubMaster(`"id":"","name":"192.0.2.9:9002","status":"never_met","cause":"no_mesh_port","since":"2026-01-02T03:04:05Z"`) + `,` +
			stubMaster(`"id":"","name":"192.0.2.10","status":"never_met","cause":"secret"`) + `,` +
			stubMaster(`"id":"","name":"192.0.2.11","status":"never_met"`) + `]}`,
		reason: "the disk of /data takes no writes: no space left on device",
	},
	// One that is joining.
	"NEW": {
		stats: `{"nodes":{"total":1},"masters":{"self":1},"joining":{"nodes":1,"of":9,"missing":[]},
			"convergence":{"in_sync":true,"splits":[]},"history":{"records":1,"bytes":4096}}`,
		masters: `{"self":"12D3KooWStub","masters":[` + stubSelf + `]}`,
		reason:  "the records of the other masters are not all here yet: 1 of 9 nodes",
	},
	// An earlier version, which says less.
	"OLD": {
		stats: `{"nodes":{"total":3,"online":2,"suspect":0,"offline":1,"drained":0,"removed":0},
			"total":{"cru":16,"mru":34359738368,"sru":0,"hru":0},"free":{"cru":12.5,"mru":1073741824,"sru":0,"hru":0},
			"slices":{"total":8,"free":5},"vms":{"total":0,"by_state":{}},"masters":{"self":1,"alive":1},
			"convergence":{"in_sync":true,"digest":"ab","lag_s":0}}`,
		masters: `{"self":"12D3KooWStub","masters":[
			{"id":"12D3KooWStub","name":"alpha","status":"self","version":"v1","last_seen":"2026-01-02T03:04:05Z","nodes":3,"in_sync":true},
			{"id":"12D3KooWOther","name":"beta","status":"alive","version":"v1","last_seen":"2026-01-02T03:04:05Z","nodes":3,"in_sync":true}]}`,
	},
}

const stubSelf = `{"id":"12D3KooWStub","name":"alpha","rpc_urls":["http://192.0.2.1:9002"],"ui_urls":[],"mesh_addrs":[],"status":"self","version":"v9","last_seen":"2026-01-02T03:04:05Z","rtt_ms":0,"nodes":3,"digest":"ab","in_sync":true,"lag_s":0,"differs":0,"clock_skew_s":0,"hears":3,"heard_by":["12D3KooWOther"],"partially_connected":false,"settings_differ":[]}`

// stubMaster is another master; members replace those that one has who is well.
func stubMaster(members string) string {
	return `{"rpc_urls":["http://192.0.2.2:9002"],"ui_urls":[],"mesh_addrs":[],"version":"v9","last_seen":"2026-01-02T03:04:05Z","rtt_ms":0,"nodes":3,"digest":"ab","in_sync":true,"lag_s":0,"differs":0,"clock_skew_s":0,"hears":3,"heard_by":[],"partially_connected":false,"settings_differ":[],` + members + `}`
}
