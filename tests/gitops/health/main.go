// How Argo CD and Flux judge objects: Argo CD by a health script in its own Lua interpreter, Flux by its own library.
//
// Reads JSON objects from standard input, and writes for each one line: {"argo": {...}, "kstatus": {...}}, both with status
// and message.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// Argo CD gives a script no more.
const scriptTimeout = time.Second

type health struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

type judgement struct {
	Argo    health `json:"argo"`
	Kstatus health `json:"kstatus"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: health SCRIPT.lua < OBJECTS.json")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path string, input io.Reader, output io.Writer) error {
	script, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	decoder, encoder := json.NewDecoder(input), json.NewEncoder(output)
	for {
		var raw json.RawMessage
		if err := decoder.Decode(&raw); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		// Numbers become int64 where they are whole, as in the programs that watch a cluster.
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(raw); err != nil {
			return err
		}
		argo, err := runHealthScript(string(script), object)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", path, object.GetName(), err)
		}
		computed, err := status.Compute(object)
		if err != nil {
			return fmt.Errorf("kstatus: %s: %w", object.GetName(), err)
		}
		judged := judgement{Argo: argo, Kstatus: health{Status: string(computed.Status), Message: computed.Message}}
		if err := encoder.Encode(judged); err != nil {
			return err
		}
	}
}

func runHealthScript(script string, object *unstructured.Unstructured) (health, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	// A script from argocd-cm gets these and a part of os; string and math stay closed.
	for name, open := range map[string]lua.LGFunction{lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return health{}, err
		}
	}
	timeout, cancel := context.WithTimeout(context.Background(), scriptTimeout)
	defer cancel()
	state.SetContext(timeout)
	state.SetGlobal("obj", buildValue(state, object.Object))
	if err := state.DoString(script); err != nil {
		return health{}, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return health{}, fmt.Errorf("the script returns %s, not a table", state.Get(-1).Type())
	}
	found := health{Status: lua.LVAsString(table.RawGetString("status")), Message: lua.LVAsString(table.RawGetString("message"))}
	switch found.Status {
	case "Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown":
		return found, nil
	}
	return health{}, fmt.Errorf("the script returns the status %q, which Argo CD does not know", found.Status)
}

func buildValue(state *lua.LState, value any) lua.LValue {
	switch typed := value.(type) {
	case bool:
		return lua.LBool(typed)
	case int64:
		return lua.LNumber(typed)
	case float64:
		return lua.LNumber(typed)
	case string:
		return lua.LString(typed)
	case []any:
		list := state.NewTable()
		for _, item := range typed {
			list.Append(buildValue(state, item))
		}
		return list
	case map[string]any:
		table := state.NewTable()
		for key, item := range typed {
			table.RawSetString(key, buildValue(state, item))
		}
		return table
	}
	return lua.LNil
}
