package descriptors

import "syscall"

// Low is the limit below which a master is short of descriptors from the start: that of
// ulimit -n 256.
const Low = 255

// Shares are how many descriptors each part of a master may have open.
type Shares struct {
	Reserve  int // logs, small files, listeners, and what nobody counts
	Database int // tables that Pebble keeps open
	Local    int // connections to the unix socket
	Mesh     int // connections that others have opened to the mesh address
	Edge     int // connections of agents to the edge address
	API      int // connections to the API over TCP
	UI       int // connections to the page
	Outbound int // connections to nodes and to other masters
}

// Of shares out a limit. Together the shares never exceed it. What is left when all have
// enough goes to agents, by way of the edge and of the API, of which there may be many.
func Of(limit int) Shares {
	part := func(of32, most int) int { return min(limit*of32/32, most) }
	s := Shares{
		Reserve: part(4, 512), Database: part(10, 1000), Local: part(3, 1024),
		Mesh: part(3, 512), UI: part(2, 2048), Outbound: part(3, 4096),
	}
	rest := max(0, limit-s.Reserve-s.Database-s.Local-s.Mesh-s.UI-s.Outbound)
	s.Edge = min(rest*3/7, 1<<16)
	s.API = min(rest-rest*3/7, 1<<16)
	return s
}

// Limit returns how many descriptors this process may have open. Go raises the soft limit
// to the hard one, less one, when a program starts.
func Limit() int {
	const most = 1 << 20 // more than anything here would use
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur > most {
		return most
	}
	return int(r.Cur)
}
