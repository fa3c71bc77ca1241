// Judge reads histories of a cluster and lets porcupine decide whether the promise held in them.
//
//	judge [-timeout D] [-pictures DIRECTORY] [FILE ...]
//
// Without files it reads standard input. It ends with 0 if all histories are good, 1 if one is bad or was not
// decided in time, 2 if the input is none.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"
)

// Histories that are read and not judged yet, for each processor.
const readAhead = 2

// totals of a run.
type totals struct {
	histories, bad, operations, logs int
	busy                             time.Duration
}

// judgeAll judges what read finds, on every processor, and tells each verdict.
func judgeAll(readAll func(found func(*History)) error, timeout time.Duration, pictures string, tell func(Verdict)) (totals, error) {
	queue := make(chan *History, readAhead*runtime.GOMAXPROCS(0))
	var lock sync.Mutex
	var sum totals
	var workers sync.WaitGroup
	for n := 0; n < runtime.GOMAXPROCS(0); n++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for history := range queue {
				clock := time.Now()
				verdict := judge(history, timeout, pictures)
				took := time.Since(clock)
				lock.Lock()
				sum.histories++
				sum.operations += verdict.OperationsCount
				sum.logs += verdict.LogsCount
				sum.busy += took
				if len(verdict.Bad) > 0 {
					sum.bad++
				}
				tell(verdict)
				lock.Unlock()
			}
		}()
	}
	err := readAll(func(history *History) { queue <- history })
	close(queue)
	workers.Wait()
	return sum, err
}

func readFiles(files []string) func(found func(*History)) error {
	return func(found func(*History)) error {
		if len(files) == 0 {
			return read("standard input", os.Stdin, found)
		}
		for _, file := range files {
			if err := readFile(file, found); err != nil {
				return err
			}
		}
		return nil
	}
}

func readFile(file string, found func(*History)) error {
	input, err := os.Open(file)
	if err != nil {
		return err
	}
	defer input.Close()
	return read(file, io.Reader(input), found)
}

func main() {
	timeout := flag.Duration("timeout", time.Minute, "longest time for one log")
	pictures := flag.String("pictures", "", "directory for porcupine's page of each bad log")
	flag.Parse()
	clock := time.Now()
	sum, err := judgeAll(readFiles(flag.Args()), *timeout, *pictures, func(verdict Verdict) {
		for _, bad := range verdict.Bad {
			fmt.Printf("bad: %s: %s\n", verdict.History, bad)
		}
	})
	fmt.Printf("judged: %d histories, %d bad, %d operations in %d logs, %.1f s, of which %.1f s in porcupine\n",
		sum.histories, sum.bad, sum.operations, sum.logs, time.Since(clock).Seconds(), sum.busy.Seconds())
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	case sum.bad > 0:
		os.Exit(1)
	}
}
