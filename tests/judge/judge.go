package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// log names a partition: the messages of one key from one sender at one member, in all its lives. A message
// without a key promises no order, so it is a log of its own.
type log struct {
	sender   string
	receiver string
	key      int64
	unkeyed  bool
}

func logOf(sender, receiver string, key *int64, number int64) log {
	if key == nil {
		return log{sender: sender, receiver: receiver, key: number, unkeyed: true}
	}
	return log{sender: sender, receiver: receiver, key: *key}
}

func (l log) String() string {
	if l.unkeyed {
		return fmt.Sprintf("%s-to-%s-message-%d", l.sender, l.receiver, l.key)
	}
	return fmt.Sprintf("%s-to-%s-key-%d", l.sender, l.receiver, l.key)
}

// Rows of the visualisation.
const (
	rowSubmit = iota
	rowTold
	rowTake
	rowAccept
	rowLife
)

// partition gives each log its operations. It decides nothing: an operation goes where its own fields say.
func partition(history *History) ([]log, map[log][]porcupine.Operation) {
	logs := make(map[log][]porcupine.Operation)
	add := func(l log, row int, what step, outcome string, call, end int64) {
		logs[l] = append(logs[l], porcupine.Operation{
			ClientId: row, Input: what, Output: outcome, Call: call, Return: end,
		})
	}
	for at := range history.Appends {
		a := &history.Appends[at]
		l := logOf(a.Sender, a.Receiver.Name, a.Key, a.Number)
		what := step{verb: submit, number: a.Number, life: a.Receiver.Life, mode: a.Mode}
		add(l, rowSubmit, what, "", a.Call, a.Queued)
		if a.Return != nil {
			what.verb = told
			add(l, rowTold, what, a.Outcome, *a.Return, *a.Return)
		}
	}
	for at := range history.Takes {
		t := &history.Takes[at]
		l := logOf(t.Sender, t.Receiver.Name, t.Key, t.Number)
		what := step{verb: take, number: t.Number, life: t.Receiver.Life}
		add(l, rowTake, what, "", t.Call, t.Call)
		if t.Return != nil {
			what.verb = accept
			add(l, rowAccept, what, "", *t.Return, *t.Return)
		}
	}
	for l := range logs {
		for at := range history.Lives {
			life := &history.Lives[at]
			if life.Receiver.Name != l.receiver {
				continue
			}
			what := step{verb: ended, life: life.Receiver.Life}
			if life.Killed {
				what.verb = died
			}
			add(l, rowLife, what, "", life.Call, life.Return)
		}
	}
	names := make([]log, 0, len(logs))
	for l := range logs {
		names = append(names, l)
	}
	sort.Slice(names, func(i, j int) bool { return names[i].String() < names[j].String() })
	return names, logs
}

// Verdict is what porcupine said of a history.
type Verdict struct {
	History         string
	OperationsCount int
	LogsCount       int
	// Of each log that is not linearizable, or was not decided in time.
	Bad []string
}

// judge lets porcupine decide on each log of a history. A picture of each bad one goes to directory, if one
// is given.
func judge(history *History, timeout time.Duration, directory string) Verdict {
	names, logs := partition(history)
	verdict := Verdict{History: history.Name, LogsCount: len(names)}
	for _, l := range names {
		operations := logs[l]
		verdict.OperationsCount += len(operations)
		result := porcupine.CheckOperationsTimeout(model, operations, timeout)
		if result == porcupine.Ok {
			continue
		}
		verdict.Bad = append(verdict.Bad, explain(history.Name, l, operations, result, timeout, directory))
	}
	return verdict
}

// explain says of a log that is not good where porcupine could not go on, and writes its page.
func explain(
	history string, l log, operations []porcupine.Operation, result porcupine.CheckResult, timeout time.Duration,
	directory string,
) string {
	_, info := porcupine.CheckOperationsVerbose(model, operations, timeout)
	text := fmt.Sprintf("%s: %s", l, strings.ToLower(string(result)))
	var longest []porcupine.Operation
	for _, partial := range info.PartialLinearizationsOperations()[0] {
		if len(partial) > len(longest) {
			longest = partial
		}
	}
	if next := firstLeft(operations, longest); next != nil {
		text += fmt.Sprintf(
			" after %d of %d operations: %s, which returned at %d", len(longest), len(operations),
			describe(next.Input.(step), next.Output.(string)), next.Return,
		)
	}
	if directory == "" {
		return text
	}
	path := filepath.Join(directory, fmt.Sprintf("%s-%s.html", history, l))
	err := os.MkdirAll(directory, 0o755)
	if err == nil {
		err = porcupine.VisualizePath(model, info, path)
	}
	if err != nil {
		return fmt.Sprintf("%s; no picture: %v", text, err)
	}
	return text + "; see " + path
}

// firstLeft is the operation that returned first of those that are not placed.
func firstLeft(all, placed []porcupine.Operation) *porcupine.Operation {
	type id struct {
		what step
		end  int64
	}
	is := make(map[id]bool, len(placed))
	for at := range placed {
		is[id{placed[at].Input.(step), placed[at].Return}] = true
	}
	var first *porcupine.Operation
	for at := range all {
		one := &all[at]
		if !is[id{one.Input.(step), one.Return}] && (first == nil || one.Return < first.Return) {
			first = one
		}
	}
	return first
}
