// Package control runs a control plane of Kubernetes on this machine: etcd, the API server and, if asked, the controller
// manager and the scheduler. There is no kubelet and no network. The programs are built from this module, except etcd, which
// is Debian's. All of them end with the test.
package control

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

const version = "v1.36.3" // of k8s.io/kubernetes in go.mod

var programs = flag.String("programs", "", "folder with kube-apiserver and so on; empty builds them")

// Plane is a running control plane.
type Plane struct {
	Config *rest.Config // of a user with all rights
	Client *kubernetes.Clientset

	dir, bin string
}

// Start starts etcd and the API server, and waits until it is ready.
func Start(t *testing.T) *Plane {
	t.Helper()
	p := &Plane{dir: t.TempDir(), bin: *programs}
	if p.bin == "" {
		p.bin = p.dir
	}
	etcdPort, peerPort, port := freePort(t), freePort(t), freePort(t)
	etcd := "http://127.0.0.1:" + etcdPort
	p.run(t, "etcd", "--data-dir="+filepath.Join(p.dir, "etcd"), "--unsafe-no-fsync", "--listen-client-urls="+etcd, "--advertise-client-urls="+etcd,
		"--listen-peer-urls=http://127.0.0.1:"+peerPort, "--initial-advertise-peer-urls=http://127.0.0.1:"+peerPort,
		"--initial-cluster=default=http://127.0.0.1:"+peerPort, "--log-level=error")

	token := rand.Text()
	p.write(t, "tokens", token+`,admin,admin,"system:masters"`+"\n")
	p.write(t, "accounts.key", privateKey(t))
	p.Program(t, "kube-apiserver", "--etcd-servers="+etcd, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+port,
		"--cert-dir="+p.dir, "--token-auth-file="+p.path("tokens"), "--authorization-mode=RBAC", "--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+p.path("accounts.key"), "--service-account-signing-key-file="+p.path("accounts.key"))
	p.Config = &rest.Config{Host: "https://127.0.0.1:" + port, BearerToken: token, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAFile: p.path("apiserver.crt")}}
	Wait(t, time.Minute, "the API server to be ready", func() error {
		client, err := kubernetes.NewForConfig(p.Config) // reads the certificate, which the server writes
		if err != nil {
			return err
		}
		p.Client = client
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	return p
}

// Controllers starts the controller manager and the scheduler.
func (p *Plane) Controllers(t *testing.T) {
	t.Helper()
	kubeconfig := api.NewConfig()
	kubeconfig.Clusters["local"] = &api.Cluster{Server: p.Config.Host, CertificateAuthority: p.Config.CAFile}
	kubeconfig.AuthInfos["admin"] = &api.AuthInfo{Token: p.Config.BearerToken}
	kubeconfig.Contexts["local"] = &api.Context{Cluster: "local", AuthInfo: "admin"}
	kubeconfig.CurrentContext = "local"
	if err := clientcmd.WriteToFile(*kubeconfig, p.path("kubeconfig")); err != nil {
		t.Fatal(err)
	}
	// The nodes are not real and send no heartbeats, so none is ever late.
	p.Program(t, "kube-controller-manager", "--kubeconfig="+p.path("kubeconfig"), "--leader-elect=false", "--secure-port=0",
		"--service-account-private-key-file="+p.path("accounts.key"), "--node-monitor-grace-period=24h",
		"--horizontal-pod-autoscaler-sync-period=1s")
	p.Program(t, "kube-scheduler", "--kubeconfig="+p.path("kubeconfig"), "--leader-elect=false", "--secure-port=0")
}

// Program builds a program of Kubernetes, unless the flag programs names a folder that has it, and runs it.
func (p *Plane) Program(t *testing.T, name string, args ...string) {
	t.Helper()
	path := filepath.Join(p.bin, name)
	if *programs == "" {
		start := time.Now()
		cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, // with the flags of go test, which has compiled some of it
			"-ldflags", "-s -w -X k8s.io/component-base/version.gitVersion="+version, "k8s.io/kubernetes/cmd/"+name)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
		t.Logf("%s %s built in %v", name, version, time.Since(start).Round(time.Second))
	}
	p.run(t, path, args...)
}

// run starts a process that ends with the test. The end of its output is logged if the test fails. If the test process dies,
// the kernel kills the child: it does so when the thread that forked ends, so that thread waits for the child.
func (p *Plane) run(t *testing.T, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(program), out.Bytes()[max(0, out.Len()-2000):])
		}
	})
}

func (p *Plane) path(name string) string { return filepath.Join(p.dir, name) }

func (p *Plane) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(p.path(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func privateKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// Wait polls until done returns nil. After the given time it fails with the last error.
func Wait(t *testing.T, patience time.Duration, what string, done func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(fmt.Errorf("waited %v for %s: %w", patience, what, err))
		}
	}
}
