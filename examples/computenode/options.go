package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/qemu"
)

// options say what runs the VMs, and with what.
type options struct {
	state    string
	driver   string // auto, memory or qemu
	images   string
	dataDir  string
	grace    time.Duration
	memoryMB uint64
}

func (o *options) validate() error {
	switch {
	case o.driver != "auto" && o.driver != "memory" && o.driver != "qemu":
		return fmt.Errorf("--driver is %q, must be auto, memory or qemu", o.driver)
	case o.driver == "qemu" && o.images == "":
		return errors.New("--driver qemu needs --images, the directory of what VMs boot")
	case o.grace <= 0:
		return fmt.Errorf("--grace is %v, must be more than 0", o.grace)
	case o.memoryMB > 1<<24:
		return fmt.Errorf("--memory-mb is %d, must be at most %d", o.memoryMB, 1<<24)
	}
	return nil
}

// choose returns the driver to use, and why it is that.
func (o *options) choose() (driver, why string) {
	if o.driver != "auto" {
		return o.driver, "--driver says so"
	}
	if o.images == "" {
		return "memory", "--images is not given"
	}
	if _, err := exec.LookPath(qemu.Program); err != nil {
		return "memory", err.Error()
	}
	return "qemu", qemu.Program + " is installed and --images is given"
}

// service returns the service, with the VMs of before.
func (o *options) service(ctx context.Context, log *slog.Logger) (*compute.Service, error) {
	driver, why := o.choose()
	log.Info("driver chosen", "driver", driver, "why", why)
	cfg := compute.Config{StatePath: o.state, Log: log}
	if driver == "qemu" {
		machines, err := qemu.New(ctx, qemu.Config{
			Images: o.images, Dir: o.dataDir, Grace: o.grace, MaxMemory: o.memoryMB << 20, Log: log,
		})
		if err != nil {
			return nil, err
		}
		cfg.Driver = machines
		if cfg.StatePath == "" {
			cfg.StatePath = filepath.Join(o.dataDir, "vms.json")
		}
	}
	return compute.New(cfg)
}

func defaultDataDir() string {
	home, _ := os.UserHomeDir() // none: a path relative to the working directory
	return filepath.Join(home, "hero", "var", "computenode")
}
