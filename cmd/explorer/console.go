package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	"github.com/coder/websocket"
	"github.com/spf13/cobra"
)

// leave is the byte that ends a console: Ctrl-], as in telnet and virsh. All
// others belong to the VM.
const leave = 0x1d

func vmConsole(r *remote) *cobra.Command {
	v := &onVM{remote: r}
	cmd := &cobra.Command{
		Use: "console SID", Short: "Talk to the serial console of a VM", Args: needs("the SID or name of a VM"),
		Long: `Talk to the serial console of a VM, until it ends or Ctrl-] is pressed. What the VM
sends goes to the terminal as it is.`,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return v.console(cmd.Context(), args[0], cmd.InOrStdin())
	}
	v.bind(cmd, false)
	return cmd
}

func (v *onVM) console(ctx context.Context, sid string, in io.Reader) error {
	c, err := v.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	path, header, err := v.stream(ctx, c, sid, "console", nil)
	if err != nil {
		return err
	}
	// Connecting is bounded like a call, the console by its user.
	dialing, cancel := context.WithTimeout(ctx, v.limit())
	defer cancel()
	ws, _, err := websocket.Dial(dialing, "ws://master"+path, &websocket.DialOptions{HTTPClient: c.HTTP(), HTTPHeader: header}) //nolint:bodyclose // it says that nobody has to
	if err != nil {
		return fmt.Errorf("console of %s: %w", sid, err)
	}
	defer ws.CloseNow() //nolint:errcheck // it is over
	if restore, ok := rawTerminal(in); ok {
		defer restore()
		fmt.Fprintf(v.err, "console of %s; Ctrl-] leaves\r\n", printable(sid))
	}
	serial := websocket.NetConn(ctx, ws, websocket.MessageBinary)
	left := make(chan error, 1)
	go func() { left <- send(serial, in) }()
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(v.out, serial)
		ended <- err
	}()
	for {
		select {
		case err := <-left:
			if errors.Is(err, errLeft) {
				return ws.Close(websocket.StatusNormalClosure, "")
			}
			left = nil // the input is at its end, the VM may still have something to say
		case err := <-ended:
			if ctx.Err() != nil {
				return nil //nolint:nilerr // interrupted, which is one way to end it
			}
			if err != nil {
				return fmt.Errorf("the console breaks off: %w", err)
			}
			return nil
		}
	}
}

var errLeft = errors.New("the user left")

// send sends what is typed, until the user leaves.
func send(serial net.Conn, in io.Reader) error {
	buf := make([]byte, 4<<10)
	for {
		n, err := in.Read(buf)
		typed, _, left := bytes.Cut(buf[:n], []byte{leave})
		if len(typed) > 0 {
			if _, err := serial.Write(typed); err != nil {
				return err
			}
		}
		if left {
			return errLeft
		}
		if err != nil {
			return err
		}
	}
}

// rawTerminal lets every key through, if the input is a terminal. It asks stty
// for that, which every system with a terminal has.
func rawTerminal(in io.Reader) (restore func(), ok bool) {
	f, isFile := in.(*os.File)
	if !isFile {
		return nil, false
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil, false
	}
	stty := func(args ...string) (string, error) {
		cmd := exec.Command("stty", args...)
		cmd.Stdin = f
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}
	before, err := stty("-g")
	if err != nil {
		return nil, false // /dev/null, say
	}
	if _, err := stty("raw", "-echo"); err != nil {
		return nil, false
	}
	return func() { _, _ = stty(before) }, true
}
