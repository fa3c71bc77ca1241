package main

import (
	"fmt"
	"strings"

	"github.com/anishathalye/porcupine"
)

// What happens to the log of one key of one sender at one receiver, as porcupine sees it.
type verb uint8

const (
	// The application hands a message over: [call, queued].
	submit verb = iota
	// The application learns what became of it: at its return.
	told
	// The receiver's application gets it: at the call of the take.
	take
	// Its listener has accepted it: at the return of the take.
	accept
	// The receiver was killed: [kill, its end was seen].
	died
	// The receiver lives, and has handed over all that it received.
	ended
)

// step is the input of an operation.
type step struct {
	verb   verb
	number int64
	// The receiver's life; 0: a message for any life.
	life int
	mode string
}

// entry is a message of which more may come.
type entry struct {
	number int64
	life   int
	// Given to the application in the receiver's present life.
	taken bool
	// Its listener accepted it, in any life.
	accepted bool
	// The sender was told that the receiver's engine has it.
	owed bool
	// For any life, and sent before one ended: that one may have been the one that had it.
	excused bool
	// The sender was told its outcome.
	told bool
}

// state is what is known of one log. It is never changed, only replaced.
type state struct {
	// The receiver's life in which messages are taken now, or the last that was.
	life int
	// That life was killed.
	dead bool
	// In the order submitted.
	log []entry
}

func (s *state) find(number int64) int {
	for at := range s.log {
		if s.log[at].number == number {
			return at
		}
	}
	return -1
}

func (s state) copied() state {
	s.log = append(make([]entry, 0, len(s.log)+1), s.log...)
	return s
}

// Forgets what nothing can be said of any more. A message for any life may come again in the next one.
func (s *state) forget(done func(*entry) bool) {
	kept := s.log[:0]
	for at := range s.log {
		if s.log[at].life == 0 || !done(&s.log[at]) {
			kept = append(kept, s.log[at])
		}
	}
	s.log = kept
}

func settled(e *entry) bool { return e.told && e.taken }

// The present life of the receiver is over: what it was given or kept counts no more.
func (s *state) end() {
	s.dead = true
	for at := range s.log {
		if s.log[at].life == 0 {
			s.log[at].taken, s.log[at].owed, s.log[at].excused = false, false, true
		}
	}
}

// isOver tells whether the life that a message was sent to is known to be over; any life is not.
func (s *state) isOver(life int) bool {
	return life != 0 && (life < s.life || (life == s.life && s.dead))
}

// next says whether the operation may take effect in this state, and what then holds.
func next(before state, what step, outcome string) (bool, state) {
	s := before.copied()
	switch what.verb {
	case submit:
		s.log = append(s.log, entry{number: what.number, life: what.life})
		return true, s
	case take:
		at := s.find(what.number)
		if at < 0 {
			// Never sent, taken and done with, or passed over by a later one.
			return false, before
		}
		if what.life < s.life || (what.life == s.life && s.dead) {
			return false, before
		}
		if what.life > s.life {
			if s.life != 0 && !s.dead {
				s.end()
			}
			s.life, s.dead = what.life, false
		}
		e := &s.log[at]
		if e.taken || (e.life != 0 && e.life != what.life) {
			return false, before
		}
		for later := at + 1; later < len(s.log); later++ {
			if s.log[later].taken {
				return false, before
			}
		}
		for earlier := 0; earlier < at; earlier++ {
			isTo := s.log[earlier].life == 0 || s.log[earlier].life == what.life
			if isTo && s.log[earlier].owed && !s.log[earlier].taken {
				return false, before
			}
		}
		e.taken = true
		// What was passed over cannot come any more in this life.
		number := what.number
		passed := true
		s.forget(func(e *entry) bool {
			passed = passed && e.number != number
			return settled(e) || (passed && !e.taken && e.life == what.life)
		})
		return true, s
	case accept:
		if at := s.find(what.number); at >= 0 {
			s.log[at].accepted = true
		}
		return true, s
	case told:
		at := s.find(what.number)
		isLost := at < 0
		switch {
		case outcome == "refused":
			// It never left: it was not taken and cannot be.
			if isLost {
				return true, before
			}
			if s.log[at].taken || s.log[at].accepted {
				return false, before
			}
			s.log = append(s.log[:at], s.log[at+1:]...)
			return true, s
		case outcome == "failed" || what.mode == "none":
		case what.mode == "applied":
			if isLost || !s.log[at].accepted {
				return false, before
			}
		case what.mode == "received":
			if isLost {
				return s.isOver(what.life), before
			}
			if !s.log[at].taken && !s.log[at].excused && !s.isOver(what.life) {
				for later := at + 1; later < len(s.log); later++ {
					if s.log[later].taken {
						return false, before
					}
				}
				s.log[at].owed = true
			}
		}
		if !isLost {
			s.log[at].told = true
			s.forget(settled)
		}
		return true, s
	case died:
		if what.life < s.life {
			return false, before
		}
		s.life = what.life
		s.end()
		s.forget(func(e *entry) bool { return e.life <= what.life && !e.accepted })
		return true, s
	default:
		for at := range s.log {
			isTo := s.log[at].life == 0 || s.log[at].life == what.life
			if isTo && s.log[at].owed && !s.log[at].taken {
				return false, before
			}
		}
		return true, s
	}
}

func describe(what step, outcome string) string {
	switch what.verb {
	case submit:
		return fmt.Sprintf("submit %d (%s)", what.number, what.mode)
	case told:
		return fmt.Sprintf("told of %d (%s): %s", what.number, what.mode, outcome)
	case take:
		return fmt.Sprintf("life %d takes %d", what.life, what.number)
	case accept:
		return fmt.Sprintf("life %d has accepted %d", what.life, what.number)
	case died:
		return fmt.Sprintf("life %d is killed", what.life)
	default:
		return fmt.Sprintf("life %d has handed over all", what.life)
	}
}

func describeState(s state) string {
	var text strings.Builder
	fmt.Fprintf(&text, "life %d", s.life)
	if s.dead {
		text.WriteString(" killed")
	}
	for _, e := range s.log {
		fmt.Fprintf(&text, " %d", e.number)
		for _, mark := range []struct {
			is   bool
			text string
		}{{e.taken, "t"}, {e.accepted, "a"}, {e.owed, "o"}, {e.told, "!"}} {
			if mark.is {
				text.WriteString(mark.text)
			}
		}
	}
	return text.String()
}

var model = porcupine.Model{
	Init: func() interface{} { return state{} },
	Step: func(before, input, output interface{}) (bool, interface{}) {
		return next(before.(state), input.(step), output.(string))
	},
	Equal: func(one, other interface{}) bool {
		a, b := one.(state), other.(state)
		if a.life != b.life || a.dead != b.dead || len(a.log) != len(b.log) {
			return false
		}
		for at := range a.log {
			if a.log[at] != b.log[at] {
				return false
			}
		}
		return true
	},
	DescribeOperation: func(input, output interface{}) string {
		return describe(input.(step), output.(string))
	},
	DescribeState: func(is interface{}) string { return describeState(is.(state)) },
}
