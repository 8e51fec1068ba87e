// Reads PromQL and rules with Prometheus' own code: a JSON list of {name, expr} from stdin, files of rules as arguments.
// What it refuses is told on stdout, by the expression's name or the file's; then the status is 1.
// With `evaluate` as its argument it answers each {expr, series} of the list: a JSON list of values by labels.
// Its version is one that many have: what it reads, later ones read. To raise it:
//
//	go get github.com/prometheus/prometheus@v0.305.1 && go mod tidy
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	var queries []struct {
		Name, Expr string
		Series     map[string]course
	}
	if err := json.NewDecoder(os.Stdin).Decode(&queries); err != nil {
		fmt.Fprintln(os.Stderr, "stdin:", err)
		os.Exit(2)
	}
	if len(os.Args) == 2 && os.Args[1] == "evaluate" {
		answers := make([]map[string]float64, 0, len(queries))
		for _, query := range queries {
			values, err := evaluate(query.Expr, query.Series)
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", query.Expr, err)
				os.Exit(2)
			}
			answers = append(answers, values)
		}
		json.NewEncoder(os.Stdout).Encode(answers)
		return
	}
	status := 0
	for _, query := range queries {
		if _, err := parser.ParseExpr(query.Expr); err != nil {
			fmt.Printf("%s: %v\n", query.Name, err)
			status = 1
		}
	}
	for _, file := range os.Args[1:] {
		_, errs := rulefmt.ParseFile(file, false)
		for _, err := range errs {
			fmt.Println(err)
			status = 1
		}
	}
	os.Exit(status)
}
