//! Between the protocol's control messages and their Cap'n Proto form.

use crate::protocol::{
    Control, ControlToMaster, ControlToSlave, Envelope, EpochMark, Incarnation, Payload, Process,
    RootDigest,
};
use crate::schema::pair_capnp::{epoch_mark, message, payload, position, process};
use crate::{Epoch, Generation, Position, Side};
use capnp::{Error, Result};

fn put_position(mut b: position::Builder<'_>, p: Position) {
    b.set_retired(p.retired);
    b.set_rep(p.rep);
    b.set_seq(p.seq);
}

fn get_position(r: position::Reader<'_>) -> Position {
    Position { retired: r.get_retired(), rep: r.get_rep(), seq: r.get_seq() }
}

fn put_payload(mut b: payload::Builder<'_>, p: Payload) {
    b.set_handle(p.handle);
    b.set_bytes(p.bytes);
}

fn get_payload(r: payload::Reader<'_>) -> Payload {
    Payload { handle: r.get_handle(), bytes: r.get_bytes() }
}

fn put_process(mut b: process::Builder<'_>, p: Process) {
    b.set_side(match p.side {
        Side::A => 0,
        Side::B => 1,
    });
    b.set_incarnation(p.incarnation.0);
}

fn get_process(r: process::Reader<'_>) -> Process {
    let side = if r.get_side() == 0 { Side::A } else { Side::B };
    Process { side, incarnation: Incarnation(r.get_incarnation()) }
}

fn put_mark(mut b: epoch_mark::Builder<'_>, m: &EpochMark) {
    b.set_epoch(m.epoch.0);
    put_position(b.reborrow().init_position(), m.position);
    b.set_digest(&m.digest.0);
    b.set_log_pieces(m.log_pieces);
    b.set_inputs_taken(m.inputs_taken);
    b.set_flush_needed(m.flush_needed);
}

fn get_mark(r: epoch_mark::Reader<'_>) -> Result<EpochMark> {
    let digest = r.get_digest()?.try_into();
    Ok(EpochMark {
        epoch: Epoch(r.get_epoch()),
        position: get_position(r.get_position()?),
        digest: RootDigest(digest.map_err(|_| Error::failed("a digest has 32 bytes".into()))?),
        log_pieces: r.get_log_pieces(),
        inputs_taken: r.get_inputs_taken(),
        flush_needed: r.get_flush_needed(),
    })
}

/// Writes a message; `log` are the bytes that a [`ControlToSlave::Log`] carries.
pub(super) fn put(mut b: message::Builder<'_>, control: &Control, log: &[u8]) {
    match control {
        Control::ToSlave(Envelope { generation, slave, body }) => {
            b.set_generation(generation.0);
            b.set_incarnation(slave.0);
            put_to_slave(b, body, log);
        }
        Control::ToMaster(Envelope { generation, slave, body }) => {
            b.set_generation(generation.0);
            b.set_incarnation(slave.0);
            put_to_master(b, body);
        }
    }
}

fn put_to_slave(mut b: message::Builder<'_>, body: &ControlToSlave, log: &[u8]) {
    match body {
        ControlToSlave::Welcome => b.set_welcome(()),
        ControlToSlave::Heartbeat { accepted } => b.set_master_heartbeat(accepted.0),
        ControlToSlave::Log { piece, end, inputs_taken, payload } => {
            b.set_log_bytes(log);
            let mut l = b.init_log();
            l.set_piece(*piece);
            l.set_inputs_taken(*inputs_taken);
            put_position(l.reborrow().init_end(), *end);
            put_payload(l.init_payload(), *payload);
        }
        ControlToSlave::EpochEnd(mark) => put_mark(b.init_epoch_end(), mark),
        ControlToSlave::InSync => b.set_in_sync(()),
        ControlToSlave::RequestRepair { first, at } => {
            let mut r = b.init_request_repair();
            r.set_first(first.0);
            put_mark(r.init_at(), at);
        }
        ControlToSlave::Goodbye => b.set_goodbye(()),
    }
}

fn put_to_master(mut b: message::Builder<'_>, body: &ControlToMaster) {
    match body {
        ControlToMaster::Hello { process } => put_process(b.init_hello(), *process),
        ControlToMaster::Heartbeat { durable } => b.set_slave_heartbeat(*durable),
        ControlToMaster::SyncStaged { round } => b.set_sync_staged(*round),
        ControlToMaster::Synced { epoch, durable } => {
            let mut s = b.init_synced();
            s.set_epoch(epoch.0);
            s.set_durable(*durable);
        }
        ControlToMaster::EpochAck { epoch, durable } => {
            let mut s = b.init_epoch_ack();
            s.set_epoch(epoch.0);
            s.set_durable(*durable);
        }
        ControlToMaster::Mismatch { epoch } => b.set_mismatch(epoch.0),
        ControlToMaster::RepairStaged { epoch, durable } => {
            let mut s = b.init_repair_staged();
            s.set_epoch(epoch.0);
            s.set_durable(*durable);
        }
        ControlToMaster::Promoted { generation } => b.set_promoted(generation.0),
        ControlToMaster::Leaving => b.set_leaving(()),
    }
}

/// Reads a message and the log bytes that it carries.
pub(super) fn get(r: message::Reader<'_>) -> Result<(Control, Vec<u8>)> {
    use message::Which;
    let generation = Generation(r.get_generation());
    let slave = Incarnation(r.get_incarnation());
    let to_slave = |body| Control::ToSlave(Envelope { generation, slave, body });
    let to_master = |body| Control::ToMaster(Envelope { generation, slave, body });
    let control = match r.which()? {
        Which::Welcome(()) => to_slave(ControlToSlave::Welcome),
        Which::MasterHeartbeat(accepted) => {
            to_slave(ControlToSlave::Heartbeat { accepted: Epoch(accepted) })
        }
        Which::Log(l) => to_slave(ControlToSlave::Log {
            piece: l.get_piece(),
            end: get_position(l.get_end()?),
            inputs_taken: l.get_inputs_taken(),
            payload: get_payload(l.get_payload()?),
        }),
        Which::EpochEnd(mark) => to_slave(ControlToSlave::EpochEnd(get_mark(mark?)?)),
        Which::InSync(()) => to_slave(ControlToSlave::InSync),
        Which::RequestRepair(r) => to_slave(ControlToSlave::RequestRepair {
            first: Epoch(r.get_first()),
            at: get_mark(r.get_at()?)?,
        }),
        Which::Goodbye(()) => to_slave(ControlToSlave::Goodbye),
        Which::Hello(p) => to_master(ControlToMaster::Hello { process: get_process(p?) }),
        Which::SlaveHeartbeat(durable) => to_master(ControlToMaster::Heartbeat { durable }),
        Which::SyncStaged(round) => to_master(ControlToMaster::SyncStaged { round }),
        Which::Synced(s) => to_master(ControlToMaster::Synced {
            epoch: Epoch(s.get_epoch()),
            durable: s.get_durable(),
        }),
        Which::EpochAck(s) => to_master(ControlToMaster::EpochAck {
            epoch: Epoch(s.get_epoch()),
            durable: s.get_durable(),
        }),
        Which::Mismatch(epoch) => to_master(ControlToMaster::Mismatch { epoch: Epoch(epoch) }),
        Which::RepairStaged(s) => to_master(ControlToMaster::RepairStaged {
            epoch: Epoch(s.get_epoch()),
            durable: s.get_durable(),
        }),
        Which::Promoted(generation) => {
            to_master(ControlToMaster::Promoted { generation: Generation(generation) })
        }
        Which::Leaving(()) => to_master(ControlToMaster::Leaving),
    };
    Ok((control, r.get_log_bytes()?.to_vec()))
}
