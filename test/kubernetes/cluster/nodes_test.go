// Package cluster plays what a cluster does with the manifests: rollouts, scaling, disruption budgets and a node's drain. The
// API server, the controllers and the scheduler are real; the nodes are not.
package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"heavy-read-api/test/kubernetes/control"
)

// kubelet stands in for the kubelets of all nodes. It runs nothing: a Pod that the scheduler has placed becomes ready at once,
// and one that is deleted is gone at once.
type kubelet struct {
	client *kubernetes.Clientset

	mu      sync.Mutex // guards the rest
	broken  string     // Pods whose name begins with it do not become ready; "" for none
	lastIP  int
	samples []sample
}

// sample is the state of the readers at one time.
type sample struct{ ready, all int }

// startNodes adds nodes, two in each zone, volumes for all claims, and the kubelet, which ends with the test.
func startNodes(t *testing.T, client *kubernetes.Clientset, nodes int) *kubelet {
	t.Helper()
	for i := range nodes {
		name := fmt.Sprintf("node-%d", i)
		capacity := core.ResourceList{"cpu": resource.MustParse("8"), "memory": resource.MustParse("32Gi"), "pods": resource.MustParse("110"),
			"ephemeral-storage": resource.MustParse("100Gi")}
		node, err := client.CoreV1().Nodes().Create(t.Context(), &core.Node{ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{
			core.LabelHostname: name, core.LabelTopologyZone: fmt.Sprintf("zone-%d", i/2),
		}}}, meta.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		node.Status = core.NodeStatus{Capacity: capacity, Allocatable: capacity, Conditions: []core.NodeCondition{
			{Type: core.NodeReady, Status: core.ConditionTrue, LastHeartbeatTime: meta.Now(), LastTransitionTime: meta.Now()},
		}}
		if _, err := client.CoreV1().Nodes().UpdateStatus(t.Context(), node, meta.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	control.Wait(t, time.Minute, "nodes without taints", func() error {
		list, err := client.CoreV1().Nodes().List(t.Context(), meta.ListOptions{})
		if err != nil {
			return err
		}
		for _, n := range list.Items {
			if len(n.Spec.Taints) > 0 {
				return fmt.Errorf("%s: %v", n.Name, n.Spec.Taints)
			}
		}
		return nil
	})
	for i := range 6 {
		_, err := client.CoreV1().PersistentVolumes().Create(t.Context(), &core.PersistentVolume{
			ObjectMeta: meta.ObjectMeta{Name: fmt.Sprintf("volume-%d", i)},
			Spec: core.PersistentVolumeSpec{
				Capacity: core.ResourceList{"storage": resource.MustParse("8Gi")}, AccessModes: []core.PersistentVolumeAccessMode{core.ReadWriteOnce},
				PersistentVolumeSource: core.PersistentVolumeSource{HostPath: &core.HostPathVolumeSource{Path: "/nowhere"}},
			},
		}, meta.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	k := &kubelet{client: client}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			k.update(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return k
}

// breakPods keeps Pods whose name begins with prefix from becoming ready from now on.
func (k *kubelet) breakPods(prefix string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.broken = prefix
}

// watch calls f and returns the samples of the readers during the call.
func (k *kubelet) watch(f func()) []sample {
	k.mu.Lock()
	from := len(k.samples)
	k.mu.Unlock()
	f()
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.samples[from:]
}

func (k *kubelet) update(ctx context.Context) {
	pods, err := k.client.CoreV1().Pods(namespace).List(ctx, meta.ListOptions{})
	if err != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var s sample
	for _, p := range pods.Items {
		if p.DeletionTimestamp == nil && p.Labels[nameLabel] == "reader" {
			s.all++
			if isReady(&p) {
				s.ready++
			}
		}
		switch {
		case p.Spec.NodeName == "":
		case p.DeletionTimestamp != nil:
			now := int64(0)
			_ = k.client.CoreV1().Pods(namespace).Delete(ctx, p.Name, meta.DeleteOptions{GracePeriodSeconds: &now})
		case p.Status.Phase != core.PodRunning || !isReady(&p):
			if p.Status.PodIP == "" {
				k.lastIP++
				p.Status.PodIP = fmt.Sprintf("10.0.%d.%d", k.lastIP/250, k.lastIP%250+1)
				p.Status.PodIPs = []core.PodIP{{IP: p.Status.PodIP}}
			}
			ready := core.ConditionTrue
			if k.broken != "" && strings.HasPrefix(p.Name, k.broken) {
				ready = core.ConditionFalse
			}
			p.Status.Phase = core.PodRunning
			p.Status.Conditions = []core.PodCondition{
				{Type: core.PodScheduled, Status: core.ConditionTrue}, {Type: core.PodInitialized, Status: core.ConditionTrue},
				{Type: core.ContainersReady, Status: ready}, {Type: core.PodReady, Status: ready, LastTransitionTime: meta.Now()},
			}
			_, _ = k.client.CoreV1().Pods(namespace).UpdateStatus(ctx, &p, meta.UpdateOptions{})
		}
	}
	k.samples = append(k.samples, s)
}

func isReady(p *core.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == core.PodReady {
			return c.Status == core.ConditionTrue
		}
	}
	return false
}
