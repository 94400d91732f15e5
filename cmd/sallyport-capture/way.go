package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/sallyport-dev/sallyport/pkg/capture"
	"github.com/sallyport-dev/sallyport/pkg/capture/nft"
	"github.com/sallyport-dev/sallyport/pkg/handoff"
)

// modeAuto is BPF where it can be effective, and nftables elsewhere.
const modeAuto = "auto"

// A capturer is a way of capturing: capture.Capture or nft.Capture.
type capturer interface {
	SetTargets([]handoff.Endpoint) error
	Enroll(name string) (capture.Enrolled, error)
	Withdraw(id uint64) error
	Relocate(all bool) []capture.Enrolled
	Workloads() []capture.Enrolled
	IDs() []uint64
	Status() capture.Status
	Check() capture.Status
	KeepProving(ctx context.Context, after func())
	Events(ctx context.Context, handle func(handoff.CaptureEvent)) error
	Counters() (map[string]uint64, error)
	Pins() string
	Close() error
}

// A way is how workloads are captured.
type way struct {
	// mode is handoff.ModeBPF or handoff.ModeNFT; reason is why, where nobody asked for it.
	mode, reason string
	// left are workloads of an earlier process.
	left []uint64
}

// limits is what the way does not promise.
func (w way) limits() []string {
	if w.mode == handoff.ModeNFT {
		return nft.Limits
	}
	return nil
}

func nftDir(runDir string) string { return filepath.Join(runDir, "nft") }

func (a *agent) bpfOptions(instance string) capture.Options {
	return capture.Options{Instance: instance, Hierarchy: a.hierarchy, Log: a.log, Canary: []string{"/proc/self/exe", canaryCommand}}
}

func (a *agent) nftOptions(instance string) nft.Options {
	return nft.Options{
		Instance: instance, Dir: nftDir(a.options.runDir), Hierarchy: a.hierarchy, Log: a.log,
		Canary: []string{"/proc/self/exe", canaryCommand},
	}
}

// chooseWay chooses. What an earlier process left is never left behind by a change: it would be denied its targets, or not captured.
func (a *agent) chooseWay(instance string) (way, error) {
	byBPF, err := capture.Left(a.bpfOptions(instance))
	if err != nil {
		return way{}, err
	}
	byNFT, err := nft.Left(a.nftOptions(instance))
	if err != nil {
		return way{}, err
	}
	switch mode := a.options.capture; mode {
	case handoff.ModeBPF, handoff.ModeNFT:
		left, others := byBPF, byNFT
		if mode == handoff.ModeNFT {
			left, others = byNFT, byBPF
		}
		if len(others) > 0 {
			return way{}, fmt.Errorf("--capture %s: %d workloads are captured in another way (end that with \"sallyport down\")", mode, len(others))
		}
		return way{mode: mode, left: left}, nil
	case modeAuto:
		if len(byNFT) > 0 {
			return way{mode: handoff.ModeNFT, reason: "workloads of an earlier agent are captured so; \"sallyport down\" ends that", left: byNFT}, nil
		}
		if err := capture.Feasible(a.hierarchy, a.documents.read.snapshot.CgroupSelectors()); capture.Hopeless(err) && len(byBPF) == 0 {
			return way{mode: handoff.ModeNFT, reason: err.Error()}, nil
		}
		return way{mode: handoff.ModeBPF, left: byBPF}, nil
	default:
		return way{}, fmt.Errorf("--capture %s: want %s, %s or %s", mode, modeAuto, handoff.ModeBPF, handoff.ModeNFT)
	}
}

// openWay opens capture in the chosen way, or in the other one where it was not asked for and turns out to be hopeless.
func (a *agent) openWay(instance string, offers map[uint64]handoff.Offer) error {
	if a.way.mode == handoff.ModeBPF {
		opened, err := a.openBPF(instance, offers)
		if err == nil {
			a.capture = opened
			return nil
		}
		if a.options.capture != modeAuto || !capture.Hopeless(err) || len(a.way.left) > 0 {
			return err
		}
		a.way = way{mode: handoff.ModeNFT, reason: err.Error()}
	}
	if a.way.reason != "" {
		a.log.Error("capture is by nftables, which promises less than BPF; see docs/capture.md", zap.String("because", a.way.reason))
	}
	// Of an agent that captured in the other way nothing may be in force still: it has no workloads any more.
	if err := capture.Release(capture.Options{Instance: instance}); err != nil {
		return err
	}
	o := a.nftOptions(instance)
	o.Offers = offers
	opened, err := nft.Open(o)
	if err != nil {
		return err
	}
	a.capture = opened
	return nil
}

func (a *agent) openBPF(instance string, offers map[uint64]handoff.Offer) (*capture.Capture, error) {
	if _, err := os.Stat(nftDir(a.options.runDir)); err == nil {
		if err := nft.Release(a.nftOptions(instance)); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	o := a.bpfOptions(instance)
	o.Offers = offers
	return capture.Open(o)
}
