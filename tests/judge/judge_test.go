package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The verdict on a file is in its name.
func TestWrittenHistories(t *testing.T) {
	for _, wanted := range []string{"good", "bad"} {
		files, err := filepath.Glob("testdata/" + wanted + "-*.jsonl")
		if err != nil || len(files) < 15 {
			t.Fatalf("%d %s histories: %v", len(files), wanted, err)
		}
		for _, file := range files {
			sum, err := judgeAll(readFiles([]string{file}), time.Minute, "", func(verdict Verdict) {
				if isBad := len(verdict.Bad) > 0; isBad != (wanted == "bad") {
					t.Errorf("%s: %v", file, verdict.Bad)
				}
			})
			if err != nil || sum.histories != 1 {
				t.Errorf("%s: %d histories: %v", file, sum.histories, err)
			}
		}
	}
}

func TestWhatIsNoHistory(t *testing.T) {
	name := `{"kind":"history","name":"x"}` + "\n"
	take := `{"kind":"take","sender":"a.1","receiver":"b.1","key":1,"number":1,"call":5,"return":6,"outcome":"accepted"}`
	for what, text := range map[string]string{
		"history":       take,
		"kind":          name + strings.Replace(take, `"kind":"take"`, `"kind":"taken"`, 1),
		"sender":        name + strings.Replace(take, "a.1", "", 1),
		"incarnation":   name + strings.Replace(take, "b.1", "b", 1),
		"before":        name + strings.Replace(take, `"return":6`, `"return":4`, 1),
		"outcome":       name + strings.Replace(take, "accepted", "ok", 1),
		"invalid":       name + "}",
		"token too":     name + strings.Repeat("x", maxLineBytes+1),
		"cannot unmars": name + strings.Replace(take, `"call":5`, `"call":"5"`, 1),
	} {
		err := read("it", strings.NewReader(text), func(*History) {})
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestPictureOfABadLog(t *testing.T) {
	directory := t.TempDir()
	_, err := judgeAll(readFiles([]string{"testdata/bad-order.jsonl"}), time.Minute, directory, func(verdict Verdict) {
		if len(verdict.Bad) != 1 || !strings.Contains(verdict.Bad[0], "life 1 takes 1") {
			t.Errorf("%v", verdict.Bad)
		}
	})
	page, readErr := os.ReadFile(filepath.Join(directory, "bad-order-a.1-to-b-key-1.html"))
	if err != nil || readErr != nil || len(page) < 10_000 {
		t.Errorf("%v %v, %d bytes", err, readErr, len(page))
	}
}
