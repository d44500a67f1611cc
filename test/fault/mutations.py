"""Bugs that lose data, send it twice or lie about it, as small changes of the sources.

test/fault/mutants seeds each of them and sees whether the tests notice; test_mutants.py sees that each
of them still can be.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re

COLLECTOR = pathlib.Path(__file__).resolve().parents[2] / "collector"


@dataclasses.dataclass(frozen=True)
class Mutation:
    """`old`, which is in the file once, however its white space is, becomes `new`."""

    name: str
    file: str  # below collector/
    old: str
    new: str
    means: str
    tests: str  # which should notice, quick ones first: of meson, by name, or below test/

    def find(self, text: str) -> re.Match:
        pattern = r"\s+".join(map(re.escape, self.old.split()))
        found = list(re.finditer(pattern, text))
        if len(found) != 1:
            raise LookupError(f"{self.name}: {len(found)} times in {self.file}: {self.old!r}")
        return found[0]

    def apply(self, text: str) -> str:
        at = self.find(text)
        return text[: at.start()] + self.new + text[at.end() :]


FLUSH = "whole/test_ingest.py::test_a_flush_is_answered_after_a_commit_and_not_before"
FULL_DISK = (
    "fault/test_storage.py::test_a_disk_that_refuses_is_waited_out"
    " whole/test_lifecycle.py::test_a_disk_that_fills_up_holds_events_back_and_loses_none"
    " whole/test_lifecycle.py::test_what_was_acknowledged_survives_a_kill_on_a_full_disk"
)
FAILED_SYNC = "fault/test_storage.py::test_a_failed_sync_ends_it_and_loses_nothing"
POWER = "fault/test_power.py::test_what_was_acknowledged_survives_a_power_cut"
KILLS = "fault/test_kill.py"
RESTART = "whole/test_export.py::test_spans_wait_over_a_restart"
RECOVERY = "whole/test_recovery.py"
FULL_STORE = "whole/test_when_full.py"
RELOAD = "whole/test_reload.py"
BAD_BACKENDS = "whole/test_bad_backends.py"
UNSURE = f"{BAD_BACKENDS}::test_bad_backend[grpc_no_status_now_and_then]"
REWOUND = f"{BAD_BACKENDS}::test_bad_backend[grpc_reset_7_now_and_then]"
REDIRECTS = f"{BAD_BACKENDS}::test_bad_backend[redirect_307]"
FLOODS = f"{BAD_BACKENDS}::test_endless_answers_cost_little_memory"
DAMAGE = "store_damage fault/test_storage.py::test_a_corrupt_block_is_passed_over_and_counted"

STORE = [
    Mutation(
        "no-sync",
        "store/store.c",
        "MDB_NOTLS | (o->read_only ? MDB_RDONLY : 0)",
        "MDB_NOTLS | MDB_NOSYNC | (o->read_only ? MDB_RDONLY : 0)",
        "a commit is never synced",
        f"{FLUSH} {POWER}",
    ),
    Mutation(
        "no-meta-sync",
        "store/store.c",
        "MDB_NOTLS | (o->read_only ? MDB_RDONLY : 0)",
        "MDB_NOTLS | MDB_NOMETASYNC | (o->read_only ? MDB_RDONLY : 0)",
        "the page that makes a commit count is not synced",
        f"{FLUSH} {POWER}",
    ),
    Mutation(
        "no-crc",
        "store/block.c",
        "|| r->header.crc != crc32c(0, bytes.p + CRC_FROM, bytes.len - CRC_FROM)",
        "",
        "a block's checksum is not looked at",
        f"block {DAMAGE}",
    ),
    Mutation(
        "crc-without-head",
        "store/block.c",
        "CRC_FROM = offsetof(struct block_header, crc) + sizeof(uint32_t)",
        "CRC_FROM = sizeof(struct block_header)",
        "the checksum leaves out the block's head",
        "block",
    ),
    Mutation(
        "newer-block-taken",
        "store/block.c",
        "if (h.version > BLOCK_VERSION) return ERR_VERSION;",
        "",
        "a block of a version to come is read as one of ours",
        "block",
    ),
    Mutation(
        "newer-lmdb-set-aside",
        "store/verify.c",
        "if (newer == 2) return NEWER;",
        "",
        "a file of an LMDB to come is set aside as corrupt",
        "store_disk",
    ),
    Mutation(
        "newer-format-taken",
        "store/verify.c",
        "return format > STORE_FORMAT ? NEWER : SOUND;",
        "return SOUND;",
        "a daemon writes into a store of a version to come",
        "store_disk fault/test_storage.py::test_a_newer_store_is_refused_and_left_alone",
    ),
    Mutation(
        "quarantine-overwrites",
        "store/verify.c",
        "renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE)",
        "renameat2(AT_FDCWD, from, AT_FDCWD, to, 0)",
        "a corrupt file replaces the one that was set aside before it",
        "store_disk",
    ),
    Mutation(
        "newest-blocks-unread",
        "store/verify.c",
        "NEWEST_BLOCKS = 8",
        "NEWEST_BLOCKS = 0",
        "what a crash would have hit is not verified at the start",
        "store_damage store_disk",
    ),
    Mutation(
        "no-lock",
        "store/store.c",
        "rc = lock_whole(fd, F_OFD_SETLK, &l);",
        "rc = lock_whole(fd, F_OFD_GETLK, &l);",
        "two daemons write one store",
        "store_disk whole/test_ingest.py::test_a_second_daemon_is_refused_and_the_first_undisturbed",
    ),
    Mutation(
        "no-room-of-its-own",
        "store/store.c",
        "s->preallocated = fallocate(fd, 0, 0, (off_t)bytes) == 0;",
        "s->preallocated = true;",
        "others may fill the disk that the store was promised",
        "store_disk fault/test_storage.py::test_a_store_that_has_its_room_does_not_mind_a_full_disk",
    ),
    Mutation(
        "readers-table-with-holes",
        "store/store.c",
        "int rc = o->read_only ? 0 : reserve_readers(o->dir);",
        "int rc = 0; (void)reserve_readers;",
        "a disk that is full at the start is a SIGBUS",
        "store_disk whole/test_lifecycle.py::test_a_disk_that_is_full_at_the_start_is_refused_in_words",
    ),
    Mutation(
        "numbers-used-twice",
        "store/commit.c",
        "int rc = is_emptied(w) ? put_next(w) : 0;",
        "int rc = 0;",
        "an emptied log counts from where it was last written down, in numbers that exporters have had",
        "commit store",
    ),
    Mutation(
        "failed-commit-is-a-success",
        "store/commit.c",
        "rc = mdb_txn_commit(w->txn); if (rc != 0) return rc;",
        "rc = mdb_txn_commit(w->txn);",
        "what LMDB could not commit is published",
        f"commit {FULL_DISK}",
    ),
    Mutation(
        "sync-error-swallowed",
        "store/commit.c",
        "if (rc == -EIO) s->broken = true; return rc;",
        "return rc == -EIO ? 0 : rc;",
        "a failed sync is called a success",
        FAILED_SYNC,
    ),
    Mutation(
        "short-write-is-the-end",
        "store/commit.c",
        "if (rc == EIO && is_disk_full(s)) return -ENOSPC;",
        "",
        "a full disk, which LMDB may call EIO, is taken for a broken one",
        f"{FULL_DISK} fault/test_storage.py::test_a_full_ext4_that_has_no_room_for_the_store_is_waited_out",
    ),
    Mutation(
        "removed-store-goes-on",
        "store/commit.c",
        "if (is_removed(s)) return ERR_REMOVED;",
        "",
        "what goes into a file without a name is acknowledged",
        "whole/test_lifecycle.py::test_a_store_that_was_removed_takes_nothing_more",
    ),
    Mutation(
        "reserve-used-up",
        "store/commit.c",
        "if (after > share(s, FULL) && after > before) return MDB_MAP_FULL;",
        "",
        "appends take the room that deletes need",
        "commit whole/test_crowds.py::test_a_store_full_of_open_runs_goes_on",
    ),
    Mutation(
        "ended-runs-stay-open",
        "store/commit.c",
        "rc = mdb_del(w->txn, w->s->open, &k, NULL);",
        "rc = 0;",
        "a run that has ended is open again after a restart",
        f"store {RECOVERY}",
    ),
    Mutation(
        "age-by-the-agents-clock",
        "store/commit.c",
        ".stored_ns = w->now_ns,",
        ".stored_ns = ret->end_ns,",
        "an agent with a wrong clock has its neighbours evicted, or none",
        "commit fault/test_clock.py",
    ),
    Mutation(
        "age-by-the-wall-clock",
        "store/commit.c",
        "return s->opened_unix_ns + (clock_mono_ns() - s->opened_mono_ns);",
        "return clock_unix_ns();",
        "a clock that is set makes what is stored too old",
        "commit fault/test_clock.py::test_a_step_ages_nothing_that_is_stored",
    ),
    Mutation(
        "evictions-uncounted",
        "store/commit.c",
        "stat_add(&s->stats->spans_evicted, w->evicted.spans);",
        "",
        "what retention takes is not counted",
        "commit fault/test_clock.py::test_retention_goes_on_after_a_step",
    ),
    Mutation(
        "newest-evicted-first",
        "store/evict.c",
        "int rc = mdb_cursor_get(h->cursor, &k, &v, MDB_FIRST);",
        "int rc = mdb_cursor_get(h->cursor, &k, &v, MDB_LAST);",
        "retention takes the newest blocks",
        "commit",
    ),
    Mutation(
        "younger-log-evicted",
        "store/evict.c",
        "heads[i].entry.stored_ns < heads[found].entry.stored_ns",
        "heads[i].entry.stored_ns > heads[found].entry.stored_ns",
        "of both logs, the one with the newer head loses it",
        "commit",
    ),
    Mutation(
        "first-is-one-too-high",
        "store/evict.c",
        "ret->first[which] = h->seq + h->entry.count;",
        "ret->first[which] = h->seq + h->entry.count + 1;",
        "after an eviction the log says that it begins one later than it does",
        "commit cursor export store",
    ),
    Mutation(
        "half-delivered-block-evicted",
        "store/evict.c",
        "if (end <= s->keep_from[which]) return false;",
        "if (h->seq < s->keep_from[which]) return false;",
        "refuse_newest lets a block go of which an exporter has the first half",
        f"cursor {FULL_STORE}",
    ),
    Mutation(
        "kept-for-the-fastest-only",
        "store/cursor.c",
        "if (s->keep_undelivered && n->active && n->cursor.seq < s->keep_from[n->which])",
        "if (s->keep_undelivered && n->active && (s->keep_from[n->which] == UINT64_MAX"
        " || n->cursor.seq > s->keep_from[n->which]))",
        "refuse_newest goes by the exporter that is furthest",
        f"cursor {FULL_STORE}",
    ),
    Mutation(
        "cursors-not-written",
        "store/commit.c",
        "if (rc == 0) rc = notes_put(s, w.txn);",
        "",
        "no cursor ever becomes durable",
        "commit cursor",
    ),
    Mutation(
        "cursor-lost-with-a-failed-commit",
        "store/commit.c",
        "if (rc == 0) notes_written(s); else if",
        "notes_written(s); if",
        "a cursor whose commit failed is taken for durable",
        "commit cursor",
    ),
    Mutation(
        "note-during-a-commit-forgotten",
        "store/cursor.c",
        "void notes_written(struct store *s) {",
        "void notes_written(struct store *s) { s->noted_ns = 0;",
        "a cursor that is noted during a commit waits for the next batch, should there be one",
        "commit",
    ),
    Mutation(
        "cursor-that-moved-on-lost",
        "store/cursor.c",
        "if (memcmp(&n->cursor, &written->cursor, sizeof(n->cursor)) == 0)",
        "if (written)",
        "a cursor that moved during a commit is taken for durable",
        "commit",
    ),
    Mutation(
        "anothers-cursor",
        "store/cursor.c",
        "MDB_val v = val_of(&n->cursor, sizeof(n->cursor));",
        "MDB_val v = val_of(&s->writing[0].cursor, sizeof(n->cursor));",
        "an exporter goes on where another one was",
        f"cursor {RELOAD}",
    ),
    Mutation(
        "new-cursor-not-saved",
        "store/cursor.c",
        "n->pending = rc == -ENOENT;",
        "n->pending = false;",
        "an exporter that has delivered nothing yet starts over at the end after a restart",
        f"cursor commit {RESTART}",
    ),
    Mutation(
        "reload-forgets-the-cursor",
        "store/cursor.c",
        "if (load_noted(s, name, ret)) return 0;",
        "",
        "an exporter that comes back begins at what was last written down",
        f"cursor export {RELOAD}",
    ),
    Mutation(
        "corrupt-block-is-the-end",
        "store/log_read.c",
        "if (rc == ERR_CORRUPT) { c->lost += end - begin; } else if (rc != 0)",
        "if (rc != 0)",
        "nobody reads past a damaged block",
        f"export {DAMAGE}",
    ),
    Mutation(
        "corrupt-block-uncounted",
        "store/log_read.c",
        "if (rc == ERR_CORRUPT) { c->lost += end - begin; }",
        "if (rc == ERR_CORRUPT) { }",
        "what a damaged block held is not counted as lost",
        f"export {DAMAGE}",
    ),
    Mutation(
        "evicted-gap-uncounted",
        "store/log_read.c",
        "c->lost += begin - c->next_seq;",
        "",
        "an exporter that was overtaken by retention doesn't learn it",
        "commit export",
    ),
    Mutation(
        "losses-start-over",
        "store/losses.c",
        "ret[i] += s->lost_before[i];",
        "ret[i] += 0;",
        "a restart forgets what was lost before it",
        "cursor whole/test_check.py::test_what_was_lost_is_still_known_after_a_restart",
    ),
]

EXPORT = [
    Mutation(
        "cursor-before-delivery",
        "export/lane_records.c",
        "l->range = range; if (range.count == 0)",
        "l->range = range; cursor_note(l->source->store, l->cursor_name,"
        " &(struct cursor){.seq = range.next_seq}); if (range.count == 0)",
        "what is read counts as delivered, should the daemon end",
        f"export {RESTART}",
    ),
    Mutation(
        "cursor-one-too-far",
        "export/lane_records.c",
        "move_to(l, records[r->taken - 1].seq + 1, r->taken);",
        "move_to(l, records[r->taken - 1].seq + 2, r->taken);",
        "the record after each batch is passed over",
        "export",
    ),
    Mutation(
        "cursor-one-short",
        "export/lane_records.c",
        "move_to(l, records[r->taken - 1].seq + 1, r->taken);",
        "move_to(l, records[r->taken - 1].seq, r->taken);",
        "the last record of each batch is sent again",
        "export",
    ),
    Mutation(
        "signals-share-a-cursor",
        "export/lane_records.c",
        'l->signal == SIGNAL_TRACES ? "%s" : "%s/%s", config->name, signal_word(l->signal)',
        '"%s", config->name',
        "an exporter's logs go by the cursor of its traces",
        "whole/test_export.py::test_each_signal_goes_on_at_its_own_place_after_a_restart",
    ),
    Mutation(
        "aborted-is-delivered",
        "export/lane_records.c",
        "if (r.outcome == OUTCOME_ABORTED) return false;",
        "",
        "a try that the end cut off counts as delivered",
        f"export {RESTART} whole/test_export.py::test_a_hanging_backend_holds_up_neither_another_one_nor_the_end",
    ),
    Mutation(
        "damage-at-the-end-read-again",
        "export/lane_records.c",
        "if (l->range.next_seq > l->place.seq) move_to(l, l->range.next_seq, 0); return true;",
        "return true;",
        "what is damaged at the end of a chunk is counted as lost with each look at it",
        "export",
    ),
    Mutation(
        "no-time-at-the-end",
        "export/exporter.c",
        "wait_until(e, deadline_ns); cut_off(e);",
        "(void)wait_until; cut_off(e);",
        "SIGTERM keeps what is stored from a backend that is there",
        "export whole/test_export.py::test_what_is_stored_goes_out_before_the_end",
    ),
    Mutation(
        "eviction-uncounted",
        "export/lane_records.c",
        "stat_add(&l->stats->evicted, records);",
        "",
        "an exporter loses to retention and doesn't say so",
        "export whole/test_export.py::test_what_retention_takes_is_counted_during_the_outage",
    ),
    Mutation(
        "eviction-counted-twice",
        "export/lane_records.c",
        "uint64_t counted = l->evicted_to > from ? l->evicted_to - from : 0;",
        "uint64_t counted = 0;",
        "what was counted while a backend was down is counted again when it is back",
        "export whole/test_export.py::test_what_retention_takes_is_counted_during_the_outage",
    ),
    Mutation(
        "read-error-skips",
        "export/lane_records.c",
        "store_read(l->source->store, log_of(l), from, CAP_EXPORT_CHUNK, &l->chunk, &range); if (err)",
        "store_read(l->source->store, log_of(l), from, CAP_EXPORT_CHUNK, &l->chunk, &range);"
        " if (err) { uint64_t first, next; store_bounds(l->source->store, log_of(l), &first, &next);"
        " move_to(l, next, 0); } if (err)",
        "a store that can't be read just now is taken for its end",
        "export",
    ),
    Mutation(
        "delivered-and-rejected",
        "export/lane.c",
        "stat_add(&l->stats->delivered, r->taken - rejected);",
        "stat_add(&l->stats->delivered, r->taken);",
        "what a backend rejects counts as delivered, too",
        "export whole/test_export.py::test_a_partial_success_is_never_sent_again",
    ),
    Mutation(
        "retry-after-ignored",
        "export/lane.c",
        "retry_failed(&l->retry, r->retry_after_ns, random)",
        "retry_failed(&l->retry, 0, random)",
        "a server that asked for time gets none",
        "export whole/test_export.py::test_retry_after_is_obeyed",
    ),
    Mutation(
        "retry-after-unbounded",
        "export/retry.c",
        "if (retry_after_ns > RETRY_AFTER_MAX_NS) retry_after_ns = RETRY_AFTER_MAX_NS;",
        "",
        "a server may keep us away for thirty years",
        "retry",
    ),
    Mutation(
        "backoff-unbounded",
        "export/retry.c",
        "if (bound > RETRY_MAX_NS) bound = RETRY_MAX_NS;",
        "",
        "after a long outage nobody tries for hours",
        "retry",
    ),
    Mutation(
        "503-is-delivered",
        "export/answer.c",
        "else if (a->status >= 300)",
        "else if (a->status >= 300 && a->status != 503)",
        "what an overloaded backend turned away counts as delivered",
        "answer",
    ),
    Mutation(
        "503-is-final",
        "export/answer.c",
        "status == 429 || (status >= 502 && status <= 504)",
        "status == 429 || status == 502 || status == 504",
        "what an overloaded backend turned away is given up",
        "answer",
    ),
    Mutation(
        "400-is-retried",
        "export/answer.c",
        "status == 429 || (status >= 502 && status <= 504)",
        "status == 429 || status == 400 || (status >= 502 && status <= 504)",
        "what a backend can't read is sent for ever, and all behind it waits",
        "answer",
    ),
    Mutation(
        "broken-off-success-is-retried",
        "export/answer.c",
        "else if (a->whole || sent)",
        "else if (a->whole)",
        "what was taken is sent again because the answer broke off",
        "answer",
    ),
    Mutation(
        "partial-success-ignored",
        "export/otlp_wire.c",
        "ret->refused = v->rejected < ret->taken ? v->rejected : ret->taken;",
        "ret->refused = 0;",
        "what a backend left out of a batch counts as delivered",
        "export whole/test_export.py::test_a_partial_success_is_never_sent_again",
    ),
    Mutation(
        "partial-success-sent-again",
        "export/otlp_wire.c",
        "ret->outcome = OUTCOME_DELIVERED;",
        "ret->outcome = v->rejected ? OUTCOME_RETRY : OUTCOME_DELIVERED;",
        "what a backend took of a batch is sent again with the rest",
        "whole/test_export.py::test_a_partial_success_is_never_sent_again",
    ),
    Mutation(
        "413-not-halved",
        "export/otlp_wire.c",
        "ret->outcome = ret->taken > 1 ? OUTCOME_SMALLER : OUTCOME_REFUSED; if (ret->taken > 1)",
        "ret->outcome = OUTCOME_REFUSED; if (ret->taken > 1)",
        "a batch that is too large is given up whole",
        "whole/test_export.py::test_a_batch_that_is_too_large_is_halved_until_it_passes",
    ),
    Mutation(
        "unsure-is-final",
        "export/otlp_wire.c",
        "unsure && w->unsure >= UNSURE_TRIES ? OUTCOME_REFUSED : OUTCOME_RETRY",
        "unsure ? OUTCOME_REFUSED : OUTCOME_RETRY",
        "a stream that was cut off once is given up",
        UNSURE,
    ),
    Mutation(
        "grpc-status-ignored",
        "export/grpc.c",
        "if (status.p && status_in(status) == GRPC_OK)",
        "if (status.p)",
        "any grpc-status counts as OK",
        "grpc",
    ),
    Mutation(
        "grpc-success-without-status",
        "export/grpc.c",
        "if (!is_grpc(a)) {",
        "if (a->whole) { judge_ok(v, a); } else if (!is_grpc(a)) {",
        "HTTP's 200 is enough for a success",
        "grpc",
    ),
    Mutation(
        "redirects-followed",
        "export/transport.c",
        "curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);",
        "curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);",
        "spans and credentials go wherever a backend points",
        REDIRECTS,
    ),
    Mutation(
        "answer-unbounded",
        "export/transport.c",
        "buf_init(&t->answer, CAP_EXPORT_RESPONSE);",
        "buf_init(&t->answer, (size_t)CAP_EXPORT_RESPONSE * 1024);",
        "a backend may fill our memory",
        FLOODS,
    ),
    Mutation(
        "half-sent-after-reconnect",
        "export/transport.c",
        "t->given = (size_t)offset; return CURL_SEEKFUNC_OK;",
        "return CURL_SEEKFUNC_OK;",
        "a request that goes out again on a new connection is not whole",
        REWOUND,
    ),
    Mutation(
        "refused-starts-uncounted",
        "export/export.c",
        "if (lane->signal == SIGNAL_TRACES && atomic_load(&lane->at) < before_seq)",
        "if (false && before_seq)",
        "refuse_newest doesn't say for whom runs were refused",
        f"export {FULL_STORE}",
    ),
]

INGEST = [
    Mutation(
        "ack-before-commit",
        "ingest/pipeline.c",
        "p->committing = true; pay(p);",
        "p->committing = true; answer(p, &p->waiters[p->filling]); pay(p);",
        "a flush is answered while its commit is under way",
        f"{FLUSH} {KILLS}",
    ),
    Mutation(
        "ack-of-a-failed-commit",
        "ingest/pipeline.c",
        "} else if (p->result) {",
        "} else if (p->result) { answer(p, &p->waiters[committed]);",
        "a flush is answered although the disk was full",
        FULL_DISK,
    ),
    Mutation(
        "failed-batch-forgotten",
        "ingest/pipeline.c",
        "uv_timer_start(&p->soon, on_retry, COMMIT_RETRY_MS, 0); return;",
        "",
        "what a full disk refused is thrown away",
        FULL_DISK,
    ),
    Mutation(
        "ack-without-its-starts",
        "ingest/pipeline.c",
        "if (!all) put_off_waiters(p);",
        "",
        "a flush is answered by a commit that not all of it went into",
        "fault/test_alloc.py::test_a_flush_waits_for_starts_that_found_no_memory",
    ),
    Mutation(
        "unsealed-starts",
        "ingest/pipeline.c",
        "bool all = runs_seal(p->runs) == 0;",
        "bool all = true;",
        "starts that outlive a commit are not in it",
        f"{RECOVERY}",
    ),
    Mutation(
        "dropped-batch-uncounted",
        "ingest/pipeline.c",
        "stat_add(&p->o.stats->spans_dropped, b->spans.count);",
        "",
        "spans that can never be stored are not counted",
        "fault/test_storage.py::test_a_span_that_the_store_can_not_hold_is_dropped_and_counted",
    ),
    Mutation(
        "nothing-drained-at-the-end",
        "ingest/pipeline.c",
        "while (!is_drained(p) && !over) {",
        "while (!is_drained(p) && !over && p->committing) {",
        "what was received before SIGTERM is not stored",
        f"{RECOVERY}",
    ),
    Mutation(
        "unread-bytes-at-the-end",
        "ingest/conn.c",
        "while (catch_up(c)) { if (pipeline_is_full",
        "while (catch_up(c) && false) { if (pipeline_is_full",
        "what agents wrote before SIGTERM is not read",
        RECOVERY,
    ),
    Mutation(
        "held-bytes-forgotten",
        "ingest/conn.c",
        "buf_append(&c->held, left.p, left.len); rc = buf_error(&c->held);",
        "rc = 0;",
        "what was read when there was no room is thrown away",
        f"whole/test_crowds.py {FULL_DISK}",
    ),
    Mutation(
        "partial-answer-has-a-hole",
        "core/runs_said.c",
        "if (at >= 0) s->full = (uint64_t)at;",
        "",
        "a part of an answer that was lost on the way is passed over in silence",
        "runs_said",
    ),
    Mutation(
        "partial-answer-wins",
        "core/runs_said.c",
        "|| tells_all(end)",
        "",
        "half an answer is shown for the whole one",
        "runs_said whole/test_partial.py",
    ),
    Mutation(
        "partial-pages-left",
        "core/runs_said.c",
        "for (unsigned page = 0; page < s->pages; page++) {",
        "for (unsigned page = 1; page < s->pages; page++) {",
        "what an answer had said stays in the store for ever",
        "runs_said whole/test_partial.py",
    ),
    Mutation(
        "open-runs-forgotten",
        "ingest/restore.c",
        "int rc = store_open_load(store, restore_one, &w);",
        "int rc = 0; (void)restore_one;",
        "a restart forgets the runs that are open",
        RECOVERY,
    ),
    Mutation(
        "partial-answers-forgotten",
        "ingest/restore.c",
        "rc = store_open_load(store, restore_said, &w);",
        "(void)restore_said;",
        "a restart forgets what an answer has said so far",
        "whole/test_partial.py",
    ),
    Mutation(
        "children-forgotten",
        "ingest/restore.c",
        "rc = refold_requests(&w, store);",
        "(void)refold_requests;",
        "a request that a restart interrupts loses the tokens from before it",
        RECOVERY,
    ),
    Mutation(
        "ended-runs-forgotten",
        "ingest/restore.c",
        "return store_spans(store, next > CAP_CLOSED_RUNS ? next - CAP_CLOSED_RUNS : 0, since, remember, &w);",
        "(void)remember; (void)since; return 0;",
        "what an agent sends again after a restart is a second span",
        f"{RECOVERY} {KILLS}",
    ),
]

MUTATIONS = [*STORE, *EXPORT, *INGEST]
