// Kueue's own controllers and scheduler for batch Jobs, without its webhooks, for a test on the local control plane: its webhook
// server and the certificates of that need a Service, which the local cluster cannot reach. Wired as in Kueue's cmd/kueue.
package main

import (
	"flag"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	config "sigs.k8s.io/kueue/apis/config/v1beta2"
	kueue "sigs.k8s.io/kueue/apis/kueue/v1beta2"
	qcache "sigs.k8s.io/kueue/pkg/cache/queue"
	schdcache "sigs.k8s.io/kueue/pkg/cache/scheduler"
	"sigs.k8s.io/kueue/pkg/constants"
	"sigs.k8s.io/kueue/pkg/controller/core"
	"sigs.k8s.io/kueue/pkg/controller/core/indexer"
	"sigs.k8s.io/kueue/pkg/controller/jobframework"
	"sigs.k8s.io/kueue/pkg/controller/jobs/job"
	"sigs.k8s.io/kueue/pkg/metrics"
	"sigs.k8s.io/kueue/pkg/scheduler"
	preemptexpectations "sigs.k8s.io/kueue/pkg/scheduler/preemption/expectations"
)

func must(err error) {
	if err != nil {
		ctrl.Log.Error(err, "cannot start")
		os.Exit(1)
	}
}

// Connects by the flag --kubeconfig, which controller-runtime defines, and runs until a signal.
func main() {
	flag.Parse()
	ctrl.SetLogger(zap.New())
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, kueue.AddToScheme, config.AddToScheme} {
		utilruntime.Must(add(scheme))
	}
	ctx := ctrl.SetupSignalHandler()
	mgr, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ctrl.Options{
		Scheme:  scheme,
		Metrics: metricsserver.Options{BindAddress: "0"},
	})
	must(err)
	configuration := &config.Configuration{}
	scheme.Default(configuration)
	localQueueMetrics := metrics.NewLocalQueueMetricsConfig(configuration.Metrics.LocalQueueMetrics)

	cache := schdcache.New(mgr.GetClient(), schdcache.WithLocalQueueMetrics(localQueueMetrics))
	requeuer := qcache.NewRequeuer()
	must(mgr.Add(requeuer))
	expectations := preemptexpectations.New()
	queues := qcache.NewManager(mgr.GetClient(), cache, requeuer,
		qcache.WithPreemptionExpectations(expectations), qcache.WithLocalQueueMetrics(localQueueMetrics))

	must(indexer.Setup(ctx, mgr.GetFieldIndexer()))
	must(job.SetupIndexes(ctx, mgr.GetFieldIndexer()))
	_, err = core.SetupControllers(mgr, queues, cache, configuration, nil, expectations, nil)
	must(err)
	reconciler, err := job.NewReconciler(ctx, mgr.GetClient(), mgr.GetFieldIndexer(),
		mgr.GetEventRecorderFor(constants.JobControllerName), jobframework.WithCache(cache), jobframework.WithQueues(queues))
	must(err)
	must(reconciler.SetupWithManager(mgr))
	jobframework.EnableIntegration(job.FrameworkName)

	go queues.CleanUpOnContext(ctx)
	go cache.CleanUpOnContext(ctx)
	must(mgr.Add(scheduler.New(queues, cache, mgr.GetClient(), mgr.GetEventRecorderFor(constants.AdmissionName),
		scheduler.WithPreemptionExpectations(expectations))))
	must(mgr.Start(ctx))
}
