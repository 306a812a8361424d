// Package worker lets a program that runs under Perdure speak to its supervisor:
// it says that it is alive, ready and how far it is, emits events that are never
// lost, and takes commands.
//
//	func main() {
//		err := worker.Run(context.Background(), worker.Options{}, func(ctx context.Context, w *worker.Worker) error {
//			var job struct{ File string }
//			if err := w.Metadata(ctx, &job); err != nil {
//				return err
//			}
//			if err := w.Ready(); err != nil {
//				return err
//			}
//			for frame := range encode(ctx, job.File) {
//				if err := w.Progress(frame.Percent, ""); err != nil {
//					return err
//				}
//			}
//			return w.EmitAcked(ctx, "encoded", map[string]any{"file": job.File})
//		})
//		if err != nil {
//			log.Fatal(err)
//		}
//	}
//
// A program that does not run under Perdure has an unsupervised Worker: each of
// its methods does nothing and succeeds. So is a nil *Worker.
//
// What has been accepted into the outbox is delivered exactly once, through
// SIGKILLs of any part of Perdure, as long as the program itself lives: it is
// kept until Perdure says that it is durable, and sent again on every new
// connection. The connection is made again for ever.
//
// The package imports the standard library and the protocol alone, whose
// specification is docs/reference/wire.md.
package worker
