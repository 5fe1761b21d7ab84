@0xd6f3a1c48a5e27b1;
# The control connection between Master and Slave. Both sides are a `Peer` to the other; calls on one
# connection arrive in the order in which they were made. Bulk data travels beside it, see
# docs/protocol.md; here it is only named by handle and size.

interface Peer {
  # The first call of each side. Refused with an exception that says what does not fit.
  greet @0 (hello :Greeting) -> (reply :Greeting);
  # One message of the pair's protocol.
  deliver @1 (message :Message) -> ();
}

struct Greeting {
  protocolVersion @0 :UInt32;
  program @1 :Text;
  # What both sides must have alike: settings and machine, as JSON, and the base image.
  agreement @2 :Data;
  incarnation @3 :UInt64;
}

struct Position {
  retired @0 :UInt64;
  rep @1 :UInt64;
  seq @2 :UInt32;
}

struct Payload {
  handle @0 :UInt64;
  bytes @1 :UInt64;
}

struct Process {
  side @0 :UInt8;
  incarnation @1 :UInt64;
}

struct EpochMark {
  epoch @0 :UInt64;
  position @1 :Position;
  digest @2 :Data;
  logPieces @3 :UInt64;
  inputsTaken @4 :UInt64;
  flushNeeded @5 :UInt64;
}

struct Message {
  generation @0 :UInt64;
  incarnation @1 :UInt64;
  union {
    welcome @2 :Void;
    masterHeartbeat @3 :UInt64;   # the sink has the output of all epochs up to this one
    log :group {
      piece @4 :UInt64;
      end @5 :Position;
      inputsTaken @6 :UInt64;
      payload @7 :Payload;
    }
    epochEnd @8 :EpochMark;
    inSync @9 :Void;
    requestRepair :group {
      first @10 :UInt64;
      at @11 :EpochMark;
    }
    goodbye @12 :Void;

    hello @13 :Process;
    slaveHeartbeat @14 :UInt64;   # durable flush
    syncStaged @15 :UInt32;
    synced :group {
      epoch @16 :UInt64;
      durable @17 :UInt64;
    }
    epochAck :group {
      epoch @18 :UInt64;
      durable @19 :UInt64;
    }
    mismatch @20 :UInt64;
    repairStaged :group {
      epoch @21 :UInt64;
      durable @22 :UInt64;
    }
    promoted @23 :UInt64;
    leaving @24 :Void;
  }
  # Bytes of log that `log` carries itself: log pieces are small and urgent.
  logBytes @25 :Data;
}
