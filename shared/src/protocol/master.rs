//! The live side: when the guest pauses, what goes to the Slave, when output may leave.

mod link;
mod release;
mod repair;
mod sync;

use super::ask::Question;
use super::peer::{OwnClock, PeerClock};
use super::{
    Bulk, BulkToMaster, BulkToSlave, Control, ControlToMaster, ControlToSlave, Envelope, EpochMark,
    Handover, HeldEpoch, Incarnation, Payload, Process, RootDigest, Settings, StopReason,
    WitnessReply, WitnessRequest,
};
use crate::{Epoch, Generation, Output, Position};
use std::collections::VecDeque;

/// What the driver knows at the end of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochSummary {
    /// The epoch that ended: the one after the last.
    pub epoch: Epoch,
    /// Where it ended. All log up to here has been handed over as [`MasterEvent::Log`].
    pub position: Position,
    /// The machine's digest there.
    pub digest: RootDigest,
    /// What the guest put out since the end of the last epoch, in order. After a promotion from the end
    /// of a log, the first epoch has everything since [`Handover::epoch`].
    pub outputs: Vec<Output>,
    /// How many inputs (console bytes) the guest has taken up to here.
    pub inputs_taken: u64,
    /// The epoch's state for a Slave that needs it (`off`, `inputs`); kept by the driver until sent.
    /// Ignored while there is no such Slave.
    pub state: Payload,
}

/// What happens to a Master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterEvent {
    /// The deadline has passed.
    Tick,
    /// The guest ended an epoch.
    EpochEnded(EpochSummary),
    /// A piece of log is complete: no further input before `end` (`replay`). No piece spans an epoch's end.
    Log {
        /// The horizon.
        end: Position,
        /// How many inputs the guest has taken up to `end`.
        inputs_taken: u64,
        /// The events.
        payload: Payload,
    },
    /// The guest stands at the end of the last epoch reported, as [`MasterAction::PauseGuest`] asked.
    GuestPaused {
        /// The number of that request.
        ticket: u64,
    },
    /// The own disk copy has synced every write before this flush.
    DurableUpTo(u64),
    /// The sink has the output of all epochs up to this one.
    Accepted(Epoch),
    /// The sink refused output that was offered in this generation: a newer one was granted.
    SinkRefused(Generation),
    /// A control message arrived.
    Control(Envelope<ControlToMaster>),
    /// A bulk message arrived.
    Bulk(Envelope<BulkToMaster>),
    /// Either connection to this Slave broke.
    Disconnected(Incarnation),
    /// The witness answered.
    Witness(WitnessReply),
    /// Answer to [`MasterAction::CollectSyncRound`].
    SyncRoundReady {
        /// For which Slave.
        slave: Incarnation,
        /// The data.
        payload: Payload,
        /// How much got dirty meanwhile.
        left_bytes: u64,
    },
    /// Answer to [`MasterAction::CollectSyncFinal`].
    SyncFinalReady {
        /// For which Slave.
        slave: Incarnation,
        /// The data.
        payload: Payload,
    },
    /// Answer to [`MasterAction::CollectRepair`].
    RepairReady {
        /// For which Slave.
        slave: Incarnation,
        /// The data.
        payload: Payload,
    },
    /// Pages of the running epoch that are worth sending ahead.
    Speculative(Payload),
    /// The guest is off. Everything it put out is in epochs that were reported.
    Finish,
}

/// What a Master has to do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterAction {
    /// Send on the control connection.
    SendControl(Control),
    /// Send on the bulk connection.
    SendBulk(Bulk),
    /// Close the connections to this Slave.
    DropSlave(Incarnation),
    /// End the running epoch soon, report it, start no other, then report [`MasterEvent::GuestPaused`].
    PauseGuest {
        /// Counts these requests.
        ticket: u64,
    },
    /// The guest may run.
    ResumeGuest,
    /// Offer this output to the sink; report [`MasterEvent::Accepted`] when the sink has it.
    Release {
        /// In whose name.
        generation: Generation,
        /// The epoch whose output it is.
        epoch: Epoch,
        /// The output, perhaps empty.
        outputs: Vec<Output>,
    },
    /// Tell the sink that a commit covers so much input.
    InputsCovered {
        /// In whose name.
        generation: Generation,
        /// How many inputs.
        count: u64,
    },
    /// Ask the witness. An answer that does not come is asked for again by the protocol.
    AskWitness(WitnessRequest),
    /// Collect what this Slave misses: all pages and sectors at first, then what got dirty.
    CollectSyncRound {
        /// For which Slave.
        slave: Incarnation,
        /// Counts the rounds, from 1.
        round: u32,
    },
    /// Collect the rest: the guest stands.
    CollectSyncFinal {
        /// For which Slave.
        slave: Incarnation,
        /// At the end of this epoch.
        at: EpochMark,
    },
    /// Compare the Slave's digests with the own over the union of both dirty sets and collect what
    /// differs: the guest stands.
    CollectRepair {
        /// For which Slave.
        slave: Incarnation,
        /// The first epoch that differed.
        first: Epoch,
        /// Where the guest stands.
        at: EpochMark,
        /// What the Slave sent.
        digests: Payload,
    },
    /// This generation is live from here: `first` is 1, or the Slave's that went live.
    Granted(Generation),
    /// Tell the user whether a Slave could take over.
    ReportProtected(bool),
    /// End for good. Release nothing, run nothing.
    Stop(StopReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Asking the witness for a generation. Nothing is released.
    Claiming,
    /// Live without a Slave that could take over.
    Unprotected,
    /// Sending rounds; `staged` says whether the Slave has the current one, `enough` that it is the last.
    Rounds { round: u32, ready: bool, staged: bool, enough: bool },
    /// Waiting for the guest to stand.
    Halting,
    /// The guest stands, the driver collects the final state.
    Collecting { at: EpochMark },
    /// The final state is under way. What came after it is held.
    Final { at: EpochMark },
    /// The Slave has it. The witness is told; nothing is released until it confirms.
    Confirming,
    /// A Slave could take over.
    Protected,
    /// The Slave reported a mismatch; waiting for the guest to stand.
    Diverged { first: Epoch },
    /// Repair of `first..=at` is under way, the guest stands.
    Repairing { first: Epoch, at: EpochMark },
    /// Ended.
    Stopped,
}

/// The Slave of this session.
#[derive(Debug, Clone, Copy)]
struct Link {
    process: Process,
    clock: PeerClock,
    acked: Epoch,
    durable: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Pause {
    ticket: u64,
    asked: bool,
    at_rest: bool,
}

/// The live side's protocol.
#[derive(Debug)]
pub struct MasterProtocol {
    settings: Settings,
    process: Process,
    generation: Generation,
    stage: Stage,
    link: Option<Link>,
    /// The Slave that was lost last: what it still says is of a session that is over.
    dropped: Option<Incarnation>,
    question: Option<Question>,
    own: OwnClock,
    ended: Epoch,
    committed: Epoch,
    released: Epoch,
    accepted: Epoch,
    /// Epochs that the sink does not have yet.
    held: VecDeque<HeldEpoch>,
    last: Option<EpochMark>,
    inputs_covered: u64,
    durable: u64,
    log_pieces: u64,
    pause: Pause,
    finishing: bool,
    reported: Option<bool>,
    now_us: u64,
    out: Vec<MasterAction>,
}

impl MasterProtocol {
    /// The first Master of a new pair: it asks the witness for generation 1 and releases nothing before.
    pub fn first(settings: Settings, process: Process, now_us: u64) -> Self {
        let mut new = Self::blank(settings, process, now_us);
        new.claim();
        new
    }

    /// Goes on from a Slave that went live. The guest runs as the handover says; the generation is won.
    pub fn promoted(settings: Settings, handover: Handover, now_us: u64) -> Self {
        let mut new = Self::blank(settings, handover.process, now_us);
        new.generation = handover.generation;
        new.stage = Stage::Unprotected;
        new.ended = handover.epoch;
        new.committed = handover.epoch;
        new.accepted = handover.accepted;
        new.released = handover.accepted;
        new.held = handover.held.into();
        new.durable = handover.durable;
        if settings.mutations.forget_committed_output {
            new.held.clear();
            (new.accepted, new.released) = (new.ended, new.ended);
        }
        new.out.push(MasterAction::Granted(new.generation));
        new.settle();
        new
    }

    fn blank(settings: Settings, process: Process, now_us: u64) -> Self {
        Self {
            settings,
            process,
            generation: Generation(0),
            stage: Stage::Claiming,
            link: None,
            dropped: None,
            question: None,
            own: OwnClock::new(now_us),
            ended: Epoch(0),
            committed: Epoch(0),
            released: Epoch(0),
            accepted: Epoch(0),
            held: VecDeque::new(),
            last: None,
            inputs_covered: 0,
            durable: 0,
            log_pieces: 0,
            pause: Pause::default(),
            finishing: false,
            reported: None,
            now_us,
            out: Vec::new(),
        }
    }

    /// Takes one event; returns what to do, in this order.
    pub fn handle(&mut self, now_us: u64, event: MasterEvent) -> Vec<MasterAction> {
        self.now_us = self.now_us.max(now_us);
        if self.stage == Stage::Stopped {
            return std::mem::take(&mut self.out);
        }
        if self.own.run(self.now_us, &self.settings)
            && let Some(link) = &mut self.link
        {
            link.clock.starved(self.now_us, &self.settings);
        }
        self.apply(event);
        self.watch();
        self.advance();
        self.settle();
        std::mem::take(&mut self.out)
    }

    /// When [`MasterEvent::Tick`] is due, on the clock of `now_us`.
    pub fn deadline(&self) -> Option<u64> {
        if !self.out.is_empty() {
            return Some(self.now_us);
        }
        if self.stage == Stage::Stopped {
            return None;
        }
        let retry = self.question.map(|q| q.asked_us + self.settings.witness_retry_us);
        let link = self.link.map(|link| link.clock.deadline(&self.settings));
        [retry, link].into_iter().flatten().min()
    }

    /// The generation that this side is live in, or was last; 0 before the first grant.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// True if a Slave could take over.
    pub fn protected(&self) -> bool {
        matches!(self.stage, Stage::Protected)
    }

    /// True while the driver has to hand over [`MasterEvent::Log`] or [`EpochSummary::state`]: from the
    /// collection of the final state on.
    pub fn feeds_slave(&self) -> bool {
        !matches!(
            self.stage,
            Stage::Claiming
                | Stage::Unprotected
                | Stage::Rounds { .. }
                | Stage::Halting
                | Stage::Stopped
        )
    }

    fn apply(&mut self, event: MasterEvent) {
        match event {
            MasterEvent::Tick => {}
            MasterEvent::EpochEnded(summary) => self.epoch_ended(summary),
            MasterEvent::Log { end, inputs_taken, payload } => {
                self.send_log(end, inputs_taken, payload);
            }
            MasterEvent::GuestPaused { ticket } => {
                if self.pause.asked && ticket == self.pause.ticket {
                    self.pause.at_rest = true;
                }
            }
            MasterEvent::DurableUpTo(flush) => self.durable = self.durable.max(flush),
            MasterEvent::Accepted(epoch) => self.output_accepted(epoch),
            MasterEvent::SinkRefused(generation) => {
                // While a claim is under way the newer generation may be the own one.
                if generation == self.generation && self.stage != Stage::Claiming {
                    self.stop(StopReason::Fenced);
                }
            }
            MasterEvent::Control(message) => self.control(message),
            MasterEvent::Bulk(message) => self.bulk(message),
            MasterEvent::Disconnected(slave) => {
                if self.is_slave(slave) {
                    self.lose_slave();
                }
            }
            MasterEvent::Witness(reply) => self.witness(reply),
            MasterEvent::SyncRoundReady { slave, payload, left_bytes } => {
                self.sync_round_ready(slave, payload, left_bytes);
            }
            MasterEvent::SyncFinalReady { slave, payload } => self.sync_final_ready(slave, payload),
            MasterEvent::RepairReady { slave, payload } => self.repair_ready(slave, payload),
            MasterEvent::Speculative(payload) => {
                if self.feeds_slave() {
                    self.send_bulk(BulkToSlave::Speculative { payload });
                }
            }
            MasterEvent::Finish => self.guest_is_off(),
        }
    }

    fn epoch_ended(&mut self, summary: EpochSummary) {
        let EpochSummary { epoch, position, digest, outputs, inputs_taken, state } = summary;
        assert!(epoch == self.ended.next(), "epochs end one after the other");
        assert!(!self.pause.at_rest, "a paused guest ends no epoch");
        assert!(
            self.last
                .is_none_or(|last| last.position <= position && last.inputs_taken <= inputs_taken),
            "positions only grow, and taken input stays taken"
        );
        let flush_needed = outputs.iter().map(|output| output.after_flush).max().unwrap_or(0);
        let flush_needed = flush_needed.max(self.last.map_or(0, |last| last.flush_needed));
        let log_pieces = self.log_pieces;
        let mark = EpochMark { epoch, position, digest, log_pieces, inputs_taken, flush_needed };
        self.ended = epoch;
        self.last = Some(mark);
        if self.feeds_slave() {
            if self.settings.active.commits_state() {
                let outputs = outputs.clone();
                self.send_bulk(BulkToSlave::EpochState { mark, outputs, payload: state });
            } else {
                self.send_control(ControlToSlave::EpochEnd(mark));
            }
        }
        self.held.push_back(HeldEpoch { epoch, outputs, flush_needed, inputs_taken });
    }

    fn send_log(&mut self, end: Position, inputs_taken: u64, payload: Payload) {
        if self.settings.active.commits_state() || !self.feeds_slave() {
            return;
        }
        assert!(!self.pause.at_rest, "a paused guest writes no log");
        self.log_pieces += 1;
        let piece = self.log_pieces;
        self.send_control(ControlToSlave::Log { piece, end, inputs_taken, payload });
    }

    fn send_control(&mut self, body: ControlToSlave) {
        if let Some(link) = self.link {
            let slave = link.process.incarnation;
            let message = Envelope { generation: self.generation, slave, body };
            self.out.push(MasterAction::SendControl(Control::ToSlave(message)));
        }
    }

    fn send_bulk(&mut self, body: BulkToSlave) {
        if let Some(link) = self.link {
            let slave = link.process.incarnation;
            let message = Envelope { generation: self.generation, slave, body };
            self.out.push(MasterAction::SendBulk(Bulk::ToSlave(message)));
        }
    }

    /// Moves on where the guest standing was all that was missing.
    fn advance(&mut self) {
        if !self.pause.at_rest {
            return;
        }
        match self.stage {
            // After a promotion the guest stands somewhere inside an epoch until one has ended.
            Stage::Halting if self.last.is_some() => self.collect_final(),
            Stage::Diverged { first } => self.request_repair(first),
            _ => {}
        }
    }

    fn stop(&mut self, reason: StopReason) {
        if self.stage == Stage::Stopped {
            return;
        }
        self.stage = Stage::Stopped;
        self.link = None;
        self.question = None;
        self.out.push(MasterAction::Stop(reason));
    }
}
