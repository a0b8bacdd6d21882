package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"millrace/drivers/drivertest"
)

// nodeServer starts npm's node-opcua, which shares no code with us.
func nodeServer(t *testing.T) (url string) {
	t.Helper()
	const folder = "../../gateway/faults/testdata/opcua"
	if _, err := os.Stat(filepath.Join(folder, "node_modules")); err != nil {
		drivertest.Lacks(t, "node-opcua is not installed: npm ci --ignore-scripts --prefix gateway/faults/testdata/opcua")
	}
	port := drivertest.FreePort(t)
	cmd := exec.Command("node", filepath.Join(folder, "server.js"), fmt.Sprint(port), "0", t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("node cannot be run: %v", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "READY") {
			return fmt.Sprintf("opc.tcp://127.0.0.1:%d", port)
		}
	}
	t.Fatal("node-opcua does not start")
	return ""
}

// TestNodeOPCUATools: what the tools say of another's server. The device that browse prints is one that a config takes as it is.
func TestNodeOPCUATools(t *testing.T) {
	url := nodeServer(t)
	tool := func(want int, name string, args ...string) string {
		t.Helper()
		return both(t, want, append([]string{name, url, "--option", "security_policy=none"}, args...)...)
	}
	device := tool(0, "browse", "-o", "yaml")
	contains(t, device, `{name: "Interop.Level", address: "nsu=urn:`, `;s=Interop.Level", type: float64, unit: "mm"}`, `;s=Interop.Recipe"}`, `;s=Interop.Int32Array", type: int32}`)
	for _, no := range []string{"Server.", "Aliases", "EURange", "HA Configuration", "EnumStrings"} {
		if strings.Contains(device, `{name: "`+no) || strings.Contains(device, "."+no) {
			t.Errorf("%s is in\n%s", no, device)
		}
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "server.yaml"), device)
	file := filepath.Join(dir, "millrace.yaml")
	writeFile(t, file, "gateway: g\ndestinations: [{name: c, url: \"mqtt://h\"}]\ninclude: server.yaml\n")
	if code, out := millrace("check", "--config", file); code != exitOK || !strings.HasSuffix(out, "ok\n") {
		t.Errorf("exit %d\n%s", code, out)
	}
	contains(t, tool(0, "browse", "-o", "csv"), "Server,i=2253,object,,,,events,\n", ";s=Interop.Tank,object,,,,events,\n", ";s=Interop.Level,variable,Double,mm,0 to 2000,read+write,of the tank\n", ";s=Writable.Sum,method,,,,call,")
	contains(t, tool(0, "browse", "i=2253", "--filter", "currenttime"), "ServerStatus.CurrentTime = i=2258  UtcTime, read\n")
	contains(t, tool(0, "history", "ns=1;s=Interop.Beat", "ns=1;s=Interop.Double", "--max", "1", "-o", "csv"), "Z,ns=1;s=Interop.Beat,0,good,\n", "ns=1;s=Interop.Double: the server gives no history of it: BadHistoryOperationUnsupported")
	contains(t, tool(exitFailed, "write", "ns=1;s=Interop.Mode", "3"), "3 is none of the numbers of its enumeration, 0=Off, 1=Manual, 2=Automatic; ", "nothing was written")
	if out := tool(exitFailed, "write", "ns=1;s=Interop.Mode", "2"); strings.Contains(out, "none of the numbers") {
		t.Errorf("a number of the enumeration: %s", out)
	}
	contains(t, tool(exitFailed, "browse", "ns=1;s=nobody"), `node "ns=1;s=nobody": the node cannot be browsed: BadNodeIdUnknown`)
	contains(t, tool(exitFailed, "call", "ns=1;s=nobody", "Sum"), `node "ns=1;s=nobody": the node cannot be browsed: BadNodeIdUnknown`)
	contains(t, tool(0, "events", "ns=1;s=Interop.Tank", "--type", "i=2915", "--for", "8s", "-o", "json"), `"name":"Pressure"`, `"active":true,"limit":"High","refresh":true}`)
}
