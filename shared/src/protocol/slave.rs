//! The side that could take over: what it commits, and whether and from where it goes live.

mod failover;
mod follow;

use super::ask::Question;
use super::peer::{OwnClock, PeerClock};
use super::{
    Bulk, BulkToMaster, BulkToSlave, Control, ControlToMaster, ControlToSlave, Envelope, EpochMark,
    HeldEpoch, Payload, Process, QuietReason, RootDigest, Settings, StopReason, WitnessReply,
    WitnessRequest,
};
use crate::{Epoch, Generation, Output, Position};
use std::collections::VecDeque;

/// What happens to a Slave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlaveEvent {
    /// The deadline has passed.
    Tick,
    /// A control message arrived.
    Control(Envelope<ControlToSlave>),
    /// A bulk message arrived in full. Its payload is staged nowhere yet.
    Bulk(Envelope<BulkToSlave>),
    /// Either connection to the Master broke.
    Disconnected,
    /// The witness answered.
    Witness(WitnessReply),
    /// The own disk copy has synced every write before this flush.
    DurableUpTo(u64),
    /// Answer to [`SlaveAction::StageSyncPages`].
    SyncPagesStaged {
        /// The round.
        round: u32,
    },
    /// Answer to [`SlaveAction::StageFinal`], [`SlaveAction::StageEpoch`], [`SlaveAction::StageRepair`]:
    /// all of it is here, and with it applied the machine has this digest.
    Staged {
        /// The epoch at whose end the machine would be.
        epoch: Epoch,
        /// Computed here, from what arrived.
        digest: RootDigest,
    },
    /// Answer to [`SlaveAction::Verify`] (`replay`), in the order asked.
    Replayed {
        /// The epoch whose end was reached.
        epoch: Epoch,
        /// The digest here.
        digest: RootDigest,
        /// What the guest put out here during that epoch.
        outputs: Vec<Output>,
    },
    /// Answer to [`SlaveAction::CollectRepairDigests`].
    RepairDigestsReady {
        /// The end of the epoch at which they were taken.
        at: Epoch,
        /// The digests.
        payload: Payload,
    },
    /// Answer to [`SlaveAction::FinishLog`], after all answers to [`SlaveAction::Verify`].
    LogFinished,
    /// A person wants this side to be live (`ft-pair failover`).
    Failover,
    /// This side cannot go on: host I/O error, full disk, a log that cannot be replayed.
    Failed,
}

/// With what a Slave goes live, for [`super::MasterProtocol::promoted`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// The process that goes live.
    pub process: Process,
    /// The generation that it won.
    pub generation: Generation,
    /// The last committed epoch. The next to end is the one after it; with `replay` it includes what was
    /// replayed since.
    pub epoch: Epoch,
    /// From where the guest goes on: with `replay` the end of the log, else the end of `epoch`.
    pub position: Position,
    /// How many inputs the guest has taken there: the sink gives what comes after them.
    pub inputs_taken: u64,
    /// The sink has the output of all epochs up to this one.
    pub accepted: Epoch,
    /// Committed output that the sink may not have yet.
    pub held: Vec<HeldEpoch>,
    /// The flush up to which the own disk copy is durable.
    pub durable: u64,
}

/// What a Slave has to do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlaveAction {
    /// Send on the control connection.
    SendControl(Control),
    /// Send on the bulk connection.
    SendBulk(Bulk),
    /// Ask the witness. An answer that does not come is asked for again by the protocol.
    AskWitness(WitnessRequest),
    /// Keep these pages of a synchronisation round, then report [`SlaveEvent::SyncPagesStaged`].
    StageSyncPages {
        /// The round.
        round: u32,
        /// The data.
        payload: Payload,
    },
    /// Complete the machine with this, compute its digest, report [`SlaveEvent::Staged`].
    StageFinal {
        /// The end of the epoch.
        mark: EpochMark,
        /// The data.
        payload: Payload,
    },
    /// Stage an epoch's state beside the image, compute the digest, report [`SlaveEvent::Staged`].
    StageEpoch {
        /// The end of the epoch.
        mark: EpochMark,
        /// The data.
        payload: Payload,
    },
    /// Keep pages that were sent ahead of their epoch's end.
    StageSpeculative {
        /// The data.
        payload: Payload,
    },
    /// Apply the staged epoch at once: it is committed.
    ApplyEpoch {
        /// Which.
        epoch: Epoch,
    },
    /// Append to the log and execute up to `end` as time allows (`replay`).
    ReplayLog {
        /// Counts the pieces of this session, from 1.
        piece: u64,
        /// The horizon.
        end: Position,
        /// The events.
        payload: Payload,
    },
    /// On reaching the mark's position compute the digest, then report [`SlaveEvent::Replayed`].
    Verify {
        /// The end of the epoch.
        mark: EpochMark,
    },
    /// Execute to the end of `at`, digest each page dirtied since the last verified epoch, report
    /// [`SlaveEvent::RepairDigestsReady`].
    CollectRepairDigests {
        /// Verified: what was dirtied after it counts.
        since: Epoch,
        /// Where to stand.
        at: EpochMark,
    },
    /// Stage the repair beside the image, compute the digest with it applied, report [`SlaveEvent::Staged`].
    StageRepair {
        /// The end of the last repaired epoch.
        mark: EpochMark,
        /// The data.
        payload: Payload,
    },
    /// Apply the staged repair at once: all epochs up to this one are committed. Forget the output that
    /// was produced here since the last verified epoch.
    ApplyRepair {
        /// The last repaired epoch.
        epoch: Epoch,
    },
    /// The Master is lost: execute to the end of the log, then report [`SlaveEvent::LogFinished`].
    FinishLog,
    /// Go live. What was applied and replayed so far is the machine.
    GoLive(Handover),
    /// This side holds no state that it may go live from, and says so. It does nothing any more.
    Quiet(QuietReason),
    /// A person's failover is refused: this side is not in sync, or not any more.
    FailoverRefused,
    /// The pair is, or is not, protected by this side.
    ReportProtected(bool),
    /// End for good.
    Stop(StopReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Saying Hello.
    Joining,
    /// Taken by a Master, filling.
    Syncing,
    /// Has the whole machine, follows.
    Following,
    /// The digest of `first` differed; waiting for the repair.
    Diverged { first: Epoch },
    /// The repair is here in full and being staged.
    Staging { first: Epoch, at: EpochMark },
    /// The Master is lost; executing the rest of the log.
    Draining,
    /// Asking the witness for the next generation.
    Claiming,
    /// Live: the Master's protocol has taken over.
    Live,
    /// Cannot go live and says so.
    Quiet,
    /// Ended.
    Stopped,
}

/// The protocol of the side that could take over.
#[derive(Debug)]
pub struct SlaveProtocol {
    settings: Settings,
    process: Process,
    /// The Master's generation, from its Welcome; 0 before.
    generation: Generation,
    stage: Stage,
    clock: PeerClock,
    own: OwnClock,
    question: Option<Question>,
    /// True once the Master said that the witness knows.
    in_sync: bool,
    committed: Option<EpochMark>,
    /// Committed output that the sink may not have.
    held: VecDeque<HeldEpoch>,
    accepted: Epoch,
    durable: u64,
    /// Epochs that ended and are not committed here: replayed (`replay`) or staged (`off`).
    expected: VecDeque<EpochMark>,
    /// `off`: the output of `expected`; at a synchronisation and a repair: what comes with it.
    arriving: VecDeque<HeldEpoch>,
    log_pieces: u64,
    log_end: Option<(Position, u64)>,
    /// Log and marks that arrived on the control connection before the machine did on the other.
    early: Vec<SlaveAction>,
    master_lost: bool,
    now_us: u64,
    out: Vec<SlaveAction>,
}

impl SlaveProtocol {
    /// A new process. Whatever it finds on its disk, it has no state to go live from.
    pub fn new(settings: Settings, process: Process, now_us: u64) -> Self {
        let mut new = Self {
            settings,
            process,
            generation: Generation(0),
            stage: Stage::Joining,
            clock: PeerClock::new(now_us),
            own: OwnClock::new(now_us),
            question: None,
            in_sync: false,
            committed: None,
            held: VecDeque::new(),
            accepted: Epoch(0),
            durable: 0,
            expected: VecDeque::new(),
            arriving: VecDeque::new(),
            log_pieces: 0,
            log_end: None,
            early: Vec::new(),
            master_lost: false,
            now_us,
            out: Vec::new(),
        };
        new.send(ControlToMaster::Hello { process });
        new
    }

    /// Takes one event; returns what to do, in this order.
    pub fn handle(&mut self, now_us: u64, event: SlaveEvent) -> Vec<SlaveAction> {
        self.now_us = self.now_us.max(now_us);
        if self.ended() {
            return std::mem::take(&mut self.out);
        }
        if self.own.run(self.now_us, &self.settings) {
            self.clock.starved(self.now_us, &self.settings);
        }
        self.apply(event);
        self.watch();
        std::mem::take(&mut self.out)
    }

    /// When [`SlaveEvent::Tick`] is due, on the clock of `now_us`.
    pub fn deadline(&self) -> Option<u64> {
        if !self.out.is_empty() {
            return Some(self.now_us);
        }
        if self.ended() {
            return None;
        }
        let retry = self.question.map(|q| q.asked_us + self.settings.witness_retry_us);
        let link = (!self.master_lost).then(|| self.clock.deadline(&self.settings));
        [retry, link].into_iter().flatten().min()
    }

    /// The last epoch that this side holds, staged and checked; none before it is synchronised.
    pub fn committed(&self) -> Option<Epoch> {
        self.committed.map(|mark| mark.epoch)
    }

    /// True once the witness knows this side as in sync.
    pub fn in_sync(&self) -> bool {
        self.in_sync
    }

    fn ended(&self) -> bool {
        matches!(self.stage, Stage::Live | Stage::Quiet | Stage::Stopped)
    }

    fn apply(&mut self, event: SlaveEvent) {
        match event {
            SlaveEvent::Tick => {}
            SlaveEvent::Control(message) => self.control(message),
            SlaveEvent::Bulk(message) => self.bulk(message),
            SlaveEvent::Disconnected => self.lose_master(),
            SlaveEvent::Witness(reply) => self.witness(reply),
            SlaveEvent::DurableUpTo(flush) => self.durable_up_to(flush),
            SlaveEvent::SyncPagesStaged { round } => {
                if self.stage == Stage::Syncing {
                    self.send(ControlToMaster::SyncStaged { round });
                }
            }
            SlaveEvent::Staged { epoch, digest } => self.staged(epoch, digest),
            SlaveEvent::Replayed { epoch, digest, outputs } => {
                self.replayed(epoch, digest, outputs);
            }
            SlaveEvent::RepairDigestsReady { at, payload } => {
                if matches!(self.stage, Stage::Diverged { .. }) && !self.master_lost {
                    self.send_bulk(BulkToMaster::RepairDigests { at, payload });
                }
            }
            SlaveEvent::LogFinished => self.log_finished(),
            SlaveEvent::Failover => self.failover(),
            SlaveEvent::Failed => {
                self.send(ControlToMaster::Leaving);
                self.stop(StopReason::Failed);
            }
        }
    }

    /// Timers: heartbeats, the Master's silence, a witness that does not answer.
    fn watch(&mut self) {
        if self.ended() {
            return;
        }
        let (now_us, settings) = (self.now_us, self.settings);
        if !self.master_lost {
            if self.stage != Stage::Joining && self.clock.silent(now_us, &settings) {
                self.lose_master();
            } else if self.clock.beat_due(now_us, &settings) {
                if self.stage == Stage::Joining {
                    self.clock.heard(now_us);
                    self.send(ControlToMaster::Hello { process: self.process });
                } else {
                    self.send(ControlToMaster::Heartbeat { durable: self.durable });
                }
            }
        }
        if let Some(question) = &mut self.question
            && now_us >= question.asked_us + settings.witness_retry_us
        {
            question.asked_us = now_us;
            let request = question.request;
            self.out.push(SlaveAction::AskWitness(request));
        }
    }

    /// The own copy became more durable. The Master hears at once: output may wait for it.
    fn durable_up_to(&mut self, flush: u64) {
        if flush > self.durable {
            self.durable = flush;
            if !matches!(self.stage, Stage::Joining | Stage::Syncing) && !self.master_lost {
                self.send(ControlToMaster::Heartbeat { durable: flush });
            }
        }
    }

    fn control(&mut self, message: Envelope<ControlToSlave>) {
        if message.slave != self.process.incarnation || self.master_lost {
            return;
        }
        if self.stage == Stage::Joining {
            if message.body == ControlToSlave::Welcome {
                self.generation = message.generation;
                self.stage = Stage::Syncing;
                self.clock.heard(self.now_us);
            }
            return;
        }
        if message.generation != self.generation {
            return;
        }
        self.clock.heard(self.now_us);
        match message.body {
            ControlToSlave::Welcome => {}
            ControlToSlave::Heartbeat { accepted } => self.output_accepted(accepted),
            ControlToSlave::Log { piece, end, inputs_taken, payload } => {
                self.log(piece, end, inputs_taken, payload);
            }
            ControlToSlave::EpochEnd(mark) => self.epoch_end(mark),
            ControlToSlave::InSync => {
                self.in_sync = true;
                self.out.push(SlaveAction::ReportProtected(true));
            }
            ControlToSlave::RequestRepair { at, .. } => self.repair_requested(at),
            ControlToSlave::Goodbye => self.stop(StopReason::Finished),
        }
    }

    fn bulk(&mut self, message: Envelope<BulkToSlave>) {
        if message.slave != self.process.incarnation || self.master_lost {
            return;
        }
        if self.stage == Stage::Joining {
            // The Welcome is on the other connection and still under way.
            self.generation = message.generation;
            self.stage = Stage::Syncing;
        }
        if message.generation != self.generation {
            return;
        }
        self.clock.heard(self.now_us);
        match message.body {
            BulkToSlave::SyncPages { round, payload } => {
                self.out.push(SlaveAction::StageSyncPages { round, payload });
            }
            BulkToSlave::SyncFinal { mark, held, payload } => {
                self.final_arrived(mark, held, payload);
            }
            BulkToSlave::EpochState { mark, outputs, payload } => {
                self.epoch_arrived(mark, outputs, payload);
            }
            BulkToSlave::Speculative { payload } => {
                self.out.push(SlaveAction::StageSpeculative { payload });
            }
            BulkToSlave::RepairData { mark, held, payload, .. } => {
                self.repair_arrived(mark, held, payload);
            }
        }
    }

    fn send(&mut self, body: ControlToMaster) {
        let (generation, slave) = (self.generation, self.process.incarnation);
        let message = Envelope { generation, slave, body };
        self.out.push(SlaveAction::SendControl(Control::ToMaster(message)));
    }

    fn send_bulk(&mut self, body: BulkToMaster) {
        let (generation, slave) = (self.generation, self.process.incarnation);
        let message = Envelope { generation, slave, body };
        self.out.push(SlaveAction::SendBulk(Bulk::ToMaster(message)));
    }

    fn stop(&mut self, reason: StopReason) {
        if !self.ended() {
            self.stage = Stage::Stopped;
            self.question = None;
            self.out.push(SlaveAction::Stop(reason));
        }
    }
}
