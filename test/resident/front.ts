import type { ServerName, UserId } from "../../src/matrix/identifiers.ts";
import type { JsonValue } from "../../src/matrix/json.ts";
import type { SigningKey } from "../../src/matrix/signatures.ts";
import type { Endpoint, Switches } from "./trouble.ts";

/** A request as it was met, for tests that count or await them. */
export interface RequestRecord {
  readonly endpoint: Endpoint | "unknown";
  readonly method: string;
  /** Path and query as sent. */
  readonly uri: string;
  readonly origin: ServerName | undefined;
  readonly at: number;
  /** Set when the answer is finished; 0 where the connection was closed instead. */
  status: number | undefined;
  /** From the request to the end of the answer. */
  milliseconds: number | undefined;
}

/** A transaction that a joined server sent to this front. */
export interface ReceivedTransaction {
  readonly origin: ServerName;
  readonly txnId: string;
  readonly pdus: readonly JsonValue[];
  readonly edus: readonly JsonValue[];
  readonly at: number;
}

/** One server of the resident that listens: it knows every room, and has a user of its own in each. */
export interface Front {
  /** `localhost:PORT` */
  readonly serverName: ServerName;
  readonly port: number;
  readonly key: SigningKey;
  readonly user: UserId;
  readonly switches: Switches;
  readonly requests: RequestRecord[];
  readonly transactions: ReceivedTransaction[];
  /** Connections are refused until {@link Front.listen}. */
  close(): Promise<void>;
  /** Listens again, on the same port. */
  listen(): Promise<void>;
}
