package crdtstoretest

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// RealisticReport makes the report of a node as they are in a real grid, for tests
// in which sizes matter: its id is that of its key, its texts are as long as real
// ones, it has three or four VMs. n numbers the nodes. Boot, Seq and the signature
// are the caller's to set.
func RealisticReport(rnd *rand.Rand, n int) (crdtstore.Report, ed25519.PrivateKey) {
	var seed [ed25519.SeedSize]byte
	for i := 0; i < len(seed); i += 8 {
		binary.LittleEndian.PutUint64(seed[i:], rnd.Uint64())
	}
	key := ed25519.NewKeyFromSeed(seed[:])
	id, err := identity.FromKey(key)
	if err != nil {
		panic(err) // a key from a seed is a key
	}
	cities := []record.Location{
		{Country: "Belgium", City: "Ghent", Latitude: 51.05, Longitude: 3.72},
		{Country: "Egypt", City: "Alexandria", Latitude: 31.2, Longitude: 29.92},
		{Country: "Tanzania", City: "Zanzibar City", Latitude: -6.16, Longitude: 39.2},
		{Country: "Switzerland", City: "Lugano", Latitude: 46.01, Longitude: 8.96},
	}
	group := func() int { return rnd.IntN(1 << 16) } // of an IPv6 address
	r := crdtstore.Report{
		NodeID: id.ID(),
		Profile: record.Profile{
			Hostname:    fmt.Sprintf("compute-%05d.farm-%02d.example.net", n, n%40),
			SocketPath:  fmt.Sprintf("http://[5%02x:%04x:%04x:%04x::%x]:9999", rnd.IntN(256), group(), group(), group(), group()),
			MyceliumIP:  fmt.Sprintf("5%02x:%04x:%04x:%04x:%04x:%04x:%04x:%04x", rnd.IntN(256), group(), group(), group(), group(), group(), group(), group()),
			Version:     "1.0.0",
			Location:    cities[rnd.IntN(len(cities))],
			Total:       record.Capacity{CRU: 32, MRU: 128 << 30, SRU: 4 << 40, HRU: 16 << 40},
			SlicesTotal: 32,
			Labels:      map[string]string{"farm": fmt.Sprint(n % 40), "rack": fmt.Sprintf("r%02d", n%12)},
			MachineID:   fmt.Sprintf("%016x%016x", rnd.Uint64(), rnd.Uint64()),
		},
	}
	for range 3 + rnd.IntN(2) {
		r.VMs = append(r.VMs, RealisticVM(rnd))
	}
	return r, key
}

// RealisticVM makes a VM of such a node.
func RealisticVM(rnd *rand.Rand) crdtstore.VM {
	sid := fmt.Sprintf("%012x", rnd.Uint64()>>16)
	return crdtstore.VM{
		SID: sid, Name: "vm-" + sid[:6], State: "running", CPU: 4, Memory: 8 << 30,
		IP: fmt.Sprintf("10.%d.%d.%d", rnd.IntN(256), rnd.IntN(256), rnd.IntN(256)),
	}
}
