"""Prints the events of a room from a Synapse's SQLite database, in the order of their arrival.

Usage: python3 read-events.py homeserver.db ROOM_ID

One line an event: its id, a tab, its JSON as Synapse stores it.
"""

import sqlite3
import sys

QUERY = """
    SELECT event_id, json FROM event_json JOIN events USING (event_id)
    WHERE events.room_id = ? AND NOT outlier ORDER BY stream_ordering
"""


def main() -> None:
    database, room_id = sys.argv[1:]
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    for event_id, text in connection.execute(QUERY, [room_id]):
        print(event_id, text, sep="\t")


main()
