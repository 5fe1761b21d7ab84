//! Synchronising a Slave while the guest runs.
//!
//! Until the witness is asked to note the Slave as in sync, that Slave cannot go live: losing it costs
//! nothing. From the question on it might, so nothing is released that it does not hold.

use super::{MasterAction, MasterProtocol, Stage};
use crate::Epoch;
use crate::protocol::{
    BulkToSlave, ControlToSlave, EpochMark, Incarnation, Payload, WitnessRequest,
};

impl MasterProtocol {
    pub(super) fn begin_rounds(&mut self, slave: Incarnation) {
        self.begin_round(slave, 1);
    }

    fn begin_round(&mut self, slave: Incarnation, round: u32) {
        self.stage = Stage::Rounds { round, ready: false, staged: false, enough: false };
        self.out.push(MasterAction::CollectSyncRound { slave, round });
    }

    pub(super) fn sync_round_ready(&mut self, slave: Incarnation, payload: Payload, left: u64) {
        let Stage::Rounds { round, ready, enough, .. } = &mut self.stage else { return };
        if *ready || self.link.is_none_or(|link| link.process.incarnation != slave) {
            return;
        }
        *ready = true;
        *enough = left <= self.settings.sync_enough_bytes || *round >= self.settings.sync_rounds;
        let round = *round;
        self.send_bulk(BulkToSlave::SyncPages { round, payload });
    }

    pub(super) fn sync_staged(&mut self, done: u32) {
        let Stage::Rounds { round, ready: true, staged: false, enough } = self.stage else {
            return self.lose_slave();
        };
        let Some(link) = self.link else { return };
        if done != round {
            return self.lose_slave();
        }
        if enough {
            self.stage = Stage::Halting;
        } else {
            self.begin_round(link.process.incarnation, round + 1);
        }
    }

    /// The guest stands at the end of the last epoch. All up to it was committed by this side alone;
    /// what comes after is for the Slave to commit.
    pub(super) fn collect_final(&mut self) {
        let Some(link) = self.link else { return };
        let at = self.standing_at();
        assert!(self.committed <= at.epoch, "the final state is not older than a commit");
        self.stage = Stage::Collecting { at };
        let slave = link.process.incarnation;
        self.out.push(MasterAction::CollectSyncFinal { slave, at });
    }

    /// The end of the last epoch.
    pub(super) fn standing_at(&self) -> EpochMark {
        let Some(last) = self.last else { unreachable!("the guest stands at the end of an epoch") };
        EpochMark { log_pieces: self.log_pieces, ..last }
    }

    pub(super) fn sync_final_ready(&mut self, slave: Incarnation, payload: Payload) {
        let Stage::Collecting { at } = self.stage else { return };
        if !self.is_slave(slave) {
            return;
        }
        let held = self.held.iter().filter(|held| held.epoch <= at.epoch).cloned().collect();
        self.send_bulk(BulkToSlave::SyncFinal { mark: at, held, payload });
        self.stage = Stage::Final { at };
    }

    pub(super) fn synced(&mut self, epoch: Epoch, durable: u64) {
        let (Stage::Final { at }, Some(link)) = (self.stage, self.link) else {
            return self.lose_slave();
        };
        if epoch != at.epoch {
            return self.lose_slave();
        }
        assert!(self.released <= epoch, "nothing is released that the Slave will not hold");
        self.stage = Stage::Confirming;
        self.acked(epoch, durable);
        if self.settings.mutations.no_in_sync_confirmation {
            self.confirmed();
        } else {
            let (generation, by) = (self.generation, self.process);
            self.ask(WitnessRequest::SetInSync { generation, by, peer: link.process });
        }
    }

    pub(super) fn confirmed(&mut self) {
        if self.stage == Stage::Confirming {
            self.stage = Stage::Protected;
            self.send_control(ControlToSlave::InSync);
        }
    }
}
