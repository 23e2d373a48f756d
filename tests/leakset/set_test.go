// Package leakset has no code of its own: what is tested here is that the list of programs and the programs say the same.
package leakset

import (
	"encoding/json"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type program struct {
	Name            string `json:"name"`
	Leaking         bool   `json:"leaking"`
	Half            string `json:"half"`
	Kind            string `json:"kind"`
	EveryOperations int    `json:"every_operations"`
}

func (p program) folder() string {
	if p.Leaking {
		return filepath.Join("leaking", p.Name)
	}
	return filepath.Join("healthy", p.Name)
}

func read(t *testing.T) []program {
	t.Helper()
	text, err := os.ReadFile("set.json")
	if err != nil {
		t.Fatal(err)
	}
	var programs []program
	if err := json.Unmarshal(text, &programs); err != nil {
		t.Fatal(err)
	}
	return programs
}

// Check that every program is in the list once, and nothing else: all are built into one folder, so no two may share a name.
func TestListHoldsEveryProgramOnce(t *testing.T) {
	listed := make(map[string]bool)
	names := make(map[string]bool)
	for _, p := range read(t) {
		if names[p.Name] {
			t.Errorf("%s is listed twice", p.Name)
		}
		listed[filepath.Join(p.folder(), "main.go")], names[p.Name] = true, true
	}
	sources, err := filepath.Glob("[lh]ea*/*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		if !listed[source] {
			t.Errorf("%s is not listed", source)
		}
		delete(listed, source)
	}
	for source := range listed {
		t.Errorf("%s is listed and not there", source)
	}
}

// Check that the half that a program belongs to follows from its name alone, and that both halves hold about as much of either label.
func TestHalvesFollowFromTheNames(t *testing.T) {
	count := make(map[bool]map[string]int)
	for _, p := range read(t) {
		half := "seen"
		if crc32.ChecksumIEEE([]byte(p.Name))%2 == 1 {
			half = "unseen"
		}
		if p.Half != half {
			t.Errorf("%s belongs to the half %q", p.Name, half)
		}
		if count[p.Leaking] == nil {
			count[p.Leaking] = make(map[string]int)
		}
		count[p.Leaking][half]++
	}
	for leaking, halves := range count {
		if seen, unseen := halves["seen"], halves["unseen"]; seen > 2*unseen || unseen > 2*seen {
			t.Errorf("leaking %v: %d are seen and %d unseen", leaking, seen, unseen)
		}
	}
}

// Check that a leaking program, and no other, marks the lines that make its leaked goroutines, and that each says what it stands for.
func TestLabelsAreInTheSources(t *testing.T) {
	for _, p := range read(t) {
		text, err := os.ReadFile(filepath.Join(p.folder(), "main.go"))
		if err != nil {
			t.Error(err)
			continue
		}
		if title := "// " + strings.ToUpper(p.Name[:1]) + p.Name[1:] + " "; !strings.HasPrefix(string(text), title) {
			t.Errorf("%s does not begin with %q", p.Name, title)
		}
		labels := 0
		for _, line := range strings.Split(string(text), "\n") {
			code, comment, found := strings.Cut(line, "// leak")
			if !found {
				continue
			}
			labels++
			if strings.TrimSpace(code) == "" || comment != "" {
				t.Errorf("%s has a label that is not at the end of a line of code: %s", p.Name, line)
			}
		}
		if p.Leaking != (labels > 0) || p.Leaking != (p.EveryOperations > 0) {
			t.Errorf("%s has %d labels, and leaks every %d operations", p.Name, labels, p.EveryOperations)
		}
	}
}
