//go:build linux

package e2e

// lifeBlows are at the points that a stack passes while it runs. Deaths of the
// server and of the supervisor take turns, so that neither is taken for a loop.
func lifeBlows() []blow {
	command, stubborn, forker := try("restart", "mortal"), try("restart", "stubborn"), try("restart", "forker")
	return []blow{
		{point: "supervisor.spawn.before", by: fall},
		{point: "server.ingest.before", by: fall},
		{point: "supervisor.spawn.after", by: fall},
		{point: "server.ingest.after", by: fall},
		{point: "supervisor.spawn.recorded", by: fall},
		{point: "sqlite.commit.before", by: fall},
		{point: "supervisor.exit.before", by: fall},
		{point: "sqlite.commit.after", by: fall},
		{point: "supervisor.exit.drained", by: fall},
		{point: "server.ack.before", by: again("supervisor")},
		{point: "supervisor.exit.recorded", by: fall},
		{point: "server.ack.after", by: again("supervisor")},
		{point: "journal.append.before", by: fall},
		{point: "server.hold.taken", by: fall},
		{point: "journal.append.after", by: fall},
		{point: "server.hold.before_drop", by: stop},
		{point: "journal.sync", by: fall},
		{point: "control.call.sent", by: command},
		{point: "control.frames.before", by: fall},
		{point: "server.lock.after", by: again("server")},
		{point: "control.frames.after", by: fall},
		{point: "server.store.after", by: again("server")},
		{point: "control.request.before", by: command},
		{point: "server.boot.after", by: again("server")},
		{point: "control.request.done", by: command},
		{point: "server.socket.after", by: again("server")},
		{point: "supervisor.signal.before", by: stubborn},
		{point: "server.guarded.before", by: again("server")},
		{point: "supervisor.signal.after", by: stubborn},
		{point: "event.retain.before", by: again("server")},
		{point: "supervisor.kill.before", by: stubborn},
		{point: "event.retain.after", by: again("server")},
		{point: "supervisor.kill.after", by: stubborn},
		{point: "server.attach.before", by: again("supervisor")},
		{point: "supervisor.gone.before", by: forker},
		{point: "server.supervisor.after_start", by: again("supervisor")},
		{point: "supervisor.gone.recorded", by: forker},
		{point: "control.handover.one", by: again("supervisor")},
		{point: "supervisor.define.before", by: reload},
		{point: "control.handover.before_done", by: again("supervisor")},
		{point: "supervisor.define.after", by: reload},
		{point: "server.apply.before", by: reload},
		{point: "supervisor.apply.defined", by: reload},
		{point: "server.apply.after", by: reload},
		{point: "supervisor.apply.removed", by: reload},
		{point: "server.reload.before_event", by: reload},
		{point: "supervisor.remove.before", by: reload},
		{point: "server.orphan.reaped", prepare: orphan, by: fall},
		{point: "supervisor.remove.half", by: reload},
		{point: "control.exit.before", prepare: orphan, by: fall},
		{point: "supervisor.remove.recorded", by: reload},
		{point: "server.supervisor.before_start", by: again("supervisor")},
		{point: "supervisor.remove.files", by: reload},
		{point: "supervisor.server.before_start", by: again("server")},
		{point: "supervisor.lock.after", by: again("supervisor")},
		{point: "supervisor.server.after_start", by: again("server")},
		{point: "supervisor.handover.taken", by: again("supervisor")},
		{point: "supervisor.guard.before_rename", by: again("server")},
		{point: "supervisor.adopt.before", by: again("supervisor")},
		{point: "supervisor.guard.after_rename", by: again("server")},
		{point: "supervisor.adopt.after", by: again("supervisor")},
		{point: "supervisor.adopt.recorded", by: again("supervisor")},
		{point: "supervisor.recover.after", by: again("supervisor")},
		{point: "supervisor.socket.after", by: again("supervisor")},
		{point: "control.hold.before", by: again("supervisor")},
		{point: "control.hold.after", by: again("supervisor")},
		// The supervisor dies while a server is coming that has asked nothing yet, or
		// one thing.
		{point: "control.request.before", by: again("server")},
		{point: "control.request.done", by: again("server")},
		{point: "control.frames.before", by: again("server")},
	}
}

// logBlows are at the points that output passes.
func logBlows() []blow {
	var out []blow
	for _, point := range []string{"logstore.index.after", "logstore.move.after", "logstore.begin.index", "logstore.begin.before_link",
		"logstore.remove.one", "logstore.pack.before_rename", "logstore.pack.before_remove", "logstore.pack.after_remove"} {
		out = append(out, blow{point: point, by: flow})
	}
	return out
}

// upgradeBlows are at the points that both parts pass when they become another
// program, and that the journal passes when it was closed in order.
func upgradeBlows() []blow {
	var out []blow
	for _, point := range []string{"server.upgrade.checked", "supervisor.upgrade.before_exec", "server.upgrade.half", "supervisor.upgrade.after_exec",
		"server.upgrade.before_exec", "journal.rotate.begin", "server.upgrade.after_exec", "journal.rotate.before_rename",
		"journal.rotate.after_rename", "journal.ack.before_remove"} {
		out = append(out, blow{point: point, by: try("upgrade")})
	}
	return out
}

// firstPoints are passed when a state directory is new.
func firstPoints() []string {
	return []string{"server.statedir.made", "sqlite.migrate.before_commit", "sqlite.migrate.after_commit", "supervisor.journal.before_name",
		"supervisor.rundir.before_link", "supervisor.boot.before"}
}

// bootPoints are passed by every `up` after an end: it is cut off there.
func bootPoints() []string {
	return []string{"supervisor.boot.after", "server.apply.before", "supervisor.spawn.before", "server.attach.before", "supervisor.spawn.after",
		"server.boot.after", "supervisor.apply.defined", "server.guarded.before", "server.supervisor.after_start"}
}

// endBlows are at the points that the end of everything passes.
func endBlows() []blow {
	down := try("down")
	return []blow{
		{point: "server.stop.begun", by: down},
		{point: "supervisor.shutdown.begun", by: down},
		{point: "supervisor.boot.before", by: down},
		{point: "supervisor.boot.after", by: down},
		{point: "server.stop.done", by: down},
		{point: "supervisor.end.before_close", by: down},
		{point: "supervisor.end.after_close", by: down},
		{point: "server.end.told", by: down},
		{point: "supervisor.exit_asked.before", by: term},
		{point: "supervisor.exit_asked.after", by: term},
	}
}
