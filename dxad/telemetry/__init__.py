"""Readings that leave the gateway in bulk, as CloudEvents through the outbox.

Each record is about the rows of one source or pipeline within a stretch of time:

    type            dxad.telemetry.readings; of the scores of a pipeline dxad.telemetry.scores; of the gateway
                    itself dxad.telemetry.health, see below
    source          /GATEWAY/telemetry/NAME
    subject         the source's name, or the pipeline's
    time            of row 0; it, `bootid`, `boottime` and `clockok` are as of every event
    data.mode       all, deadband, last, mean or minmax
    data.first      the number of row 0 on the source's grid in this boot: bootid, source, first and the
                    channels tell a record from all others, but for those that tell samples which came late
    data.rows       how many rows it is about; row k is of the moment time + k * period_ns
    data.period_ns  nanoseconds from one row to the next
    data.lost       rows before this record that were overwritten before they could be read
    data.channels   by the channel's id:
        unit        of its values; absent where it has none
      mode all
        values      of each sample, in the order of time; null where there is no number
        at          their rows; absent where each row has one
        uncertain   places in `values` of those that are doubtful; absent where there are none
        bad         places of those that are bad, likewise
      mode deadband, of what differs from what was told last, or when `max_interval` is over: as all, and
        held        places of those that are no samples, but still valid
        missing     places from where on there is no value any more
      mode last
        value, at   the last sample that is not bad, and its row
        uncertain   true if it is doubtful
      mode mean
        mean, count of the good samples
      mode minmax
        mean, count, min, max

The scores of a pipeline are the channels `score.raw` and `score.judged`.

Of a source that waits for the outbox (`ack = "outbox"`), mode all tells every sample that came, also those
that share a row, or that came after theirs was sealed. Each has its row in `at`, and

        stamps_us   the device's own times, microseconds since 1970, 0 for none; absent where all have none

Two of its records may be about the same rows; what comes again after a crash is told again.

A channel without such a sample is left out, and so is a record without any channel. A stretch whose record
would be larger than 64 KiB comes in several, each with other channels or other rows.

In mode all, cells that a source fills after their rows were told, by history or by samples that came late,
are told in further records, as those above with `at` for each, and `data.backfilled` true. In other modes
they are not told again.

Of the gateway itself (`health = true`): `time` is when it was so, `subject` the gateway, and

    data.mode       health
    data.conditions those that hold, as in the status of the daemon
    data.metrics    numbers, by the name and labels that Prometheus sees; in further records of the same time,
                    if they are many
"""

from dxad.telemetry.filled import FILLED_BYTES
from dxad.telemetry.readings import split
from dxad.telemetry.service import WAITING_MOST, Telemetry, rows_at_once

__all__ = ["FILLED_BYTES", "WAITING_MOST", "Telemetry", "rows_at_once", "split"]
