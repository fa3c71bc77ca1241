package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Longest line of a history.
const maxLineBytes = 64 << 10

// Records of one history at most: what is larger is no history of this cluster.
const maxRecords = 4 << 20

// After everything else: the return of an operation that was never seen to return.
const never = math.MaxInt64

// Line is one line of a history file; README.md says what its fields mean.
type Line struct {
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Sender   string `json:"sender"`
	Receiver string `json:"receiver"`
	Key      *int64 `json:"key"`
	Number   int64  `json:"number"`
	Mode     string `json:"mode"`
	Call     int64  `json:"call"`
	Queued   *int64 `json:"queued"`
	Return   *int64 `json:"return"`
	Outcome  string `json:"outcome"`
}

// Incarnation is one life of a member: "b.2" is the second of b. Life 0, "b", is any life.
type Incarnation struct {
	Name string
	Life int
}

// History is what was seen of one cluster.
type History struct {
	Name    string
	Appends []Append
	Takes   []Take
	Lives   []Life
}

// Append is one message on its way to one member.
type Append struct {
	Sender   string
	Receiver Incarnation
	Key      *int64
	Number   int64
	Mode     string
	Call     int64
	Queued   int64
	// Nil if the sender was never told.
	Return  *int64
	Outcome string
}

// Take is one run of a listener.
type Take struct {
	Sender   string
	Receiver Incarnation
	Key      *int64
	Number   int64
	Call     int64
	// When the listener had accepted it; nil if it never did.
	Return *int64
}

// Life is how a receiver ended: killed, or alive with everything handed over.
type Life struct {
	Receiver Incarnation
	Killed   bool
	Call     int64
	Return   int64
}

func incarnation(text string, anyLife bool) (Incarnation, error) {
	name, life, found := strings.Cut(text, ".")
	if !found && anyLife && name != "" {
		return Incarnation{Name: name}, nil
	}
	number, err := strconv.Atoi(life)
	if name == "" || err != nil || number < 1 {
		return Incarnation{}, fmt.Errorf("%q is no incarnation: NAME.LIFE, lives count from 1", text)
	}
	return Incarnation{Name: name, Life: number}, nil
}

// Adds a line; what it does not know, or what cannot be, is an error: a checker that guesses proves nothing.
func (h *History) add(line *Line) error {
	if line.Return != nil && *line.Return < line.Call {
		return fmt.Errorf("it returns at %d, before its call at %d", *line.Return, line.Call)
	}
	if line.Kind != "life" && line.Sender == "" {
		return fmt.Errorf("no sender")
	}
	receiver, err := incarnation(line.Receiver, line.Kind == "append")
	if err != nil {
		return err
	}
	switch line.Kind {
	case "append":
		queued := int64(never)
		if line.Queued != nil {
			queued = *line.Queued
		}
		if queued < line.Call {
			return fmt.Errorf("it is queued at %d, before its call at %d", queued, line.Call)
		}
		switch line.Mode {
		case "applied", "received", "none":
		default:
			return fmt.Errorf("%q is no mode: applied, received or none", line.Mode)
		}
		switch line.Outcome {
		case "ok", "failed", "refused":
			if line.Return == nil {
				return fmt.Errorf("outcome %s without a return", line.Outcome)
			}
		case "unknown":
			if line.Return != nil {
				return fmt.Errorf("outcome unknown with a return")
			}
		default:
			return fmt.Errorf("%q is no outcome of an append: ok, failed, refused or unknown", line.Outcome)
		}
		h.Appends = append(h.Appends, Append{
			Sender: line.Sender, Receiver: receiver, Key: line.Key, Number: line.Number, Mode: line.Mode,
			Call: line.Call, Queued: queued, Return: line.Return, Outcome: line.Outcome,
		})
	case "take":
		take := Take{
			Sender: line.Sender, Receiver: receiver, Key: line.Key, Number: line.Number, Call: line.Call,
		}
		switch line.Outcome {
		case "accepted":
			if line.Return == nil {
				return fmt.Errorf("outcome accepted without a return")
			}
			take.Return = line.Return
		case "refused", "open":
		default:
			return fmt.Errorf("%q is no outcome of a take: accepted, refused or open", line.Outcome)
		}
		h.Takes = append(h.Takes, take)
	case "life":
		if line.Return == nil || (line.Outcome != "killed" && line.Outcome != "alive") {
			return fmt.Errorf("a life needs a return, and an outcome that is killed or alive")
		}
		h.Lives = append(h.Lives, Life{
			Receiver: receiver, Killed: line.Outcome == "killed", Call: line.Call, Return: *line.Return,
		})
	default:
		return fmt.Errorf("%q is no kind: history, append, take or life", line.Kind)
	}
	if len(h.Appends)+len(h.Takes)+len(h.Lives) > maxRecords {
		return fmt.Errorf("more than %d operations in one history", maxRecords)
	}
	return nil
}

// read gives every history of a file to found, which keeps it.
func read(file string, input io.Reader, found func(*History)) error {
	scanner := bufio.NewScanner(input)
	scanner.Buffer(make([]byte, maxLineBytes), maxLineBytes)
	var history *History
	number := 0
	for scanner.Scan() {
		number++
		var line Line
		if len(scanner.Bytes()) == 0 {
			continue
		}
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			return fmt.Errorf("%s:%d: %w", file, number, err)
		}
		if line.Kind == "history" {
			if history != nil {
				found(history)
			}
			history = &History{Name: line.Name}
			continue
		}
		if history == nil {
			return fmt.Errorf("%s:%d: the first line names the history: {\"kind\":\"history\",\"name\":...}", file, number)
		}
		if err := history.add(&line); err != nil {
			return fmt.Errorf("%s:%d: %w", file, number, err)
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("%s:%d: %w", file, number+1, err)
	}
	if history != nil {
		found(history)
	}
	return nil
}
