import { Client, Connection, isGrpcServiceError } from "@temporalio/client";
import type { Logger } from "pino";
import { MATRIX_ROOM_ID, PARTIAL_EVENTS, RESYNC_PHASE } from "../../workflows/contract.ts";
import type { TemporalConfig } from "./config.ts";

/** How long a call to Temporal may take before it counts as away; nothing that a user waits for may hang on it. */
const CALL_WITHIN_MS = 5_000;

/** gRPC's cancelled, deadline exceeded, resource exhausted, aborted, internal, unavailable: worth another attempt. */
const PASSING_CODES: ReadonlySet<number> = new Set([1, 4, 8, 10, 13, 14]);

/** Temporal's IndexedValueType by search attribute. */
const ATTRIBUTES = { [MATRIX_ROOM_ID.name]: 2, [RESYNC_PHASE.name]: 2, [PARTIAL_EVENTS.name]: 3 } as const;

const REGISTER_COMMAND =
  "temporal operator search-attribute create " +
  `--name ${MATRIX_ROOM_ID.name} --type Keyword --name ${RESYNC_PHASE.name} --type Keyword ` +
  `--name ${PARTIAL_EVENTS.name} --type Int`;

/** The client half of Temporal: starting, signalling, querying. Connects when it is first used, and again when lost. */
export interface TemporalLink {
  readonly client: Client;
  readonly connection: Connection;
  readonly namespace: string;
  readonly taskQueue: string;
  /** Runs `work` with a deadline of five seconds for each of its calls. */
  within<T>(work: () => Promise<T>): Promise<T>;
  /**
   * Whether the search attributes are registered, by us if need be; tried again as long as Temporal can't be asked.
   *
   * @throws ServiceError while Temporal is away
   */
  searchAttributes(): Promise<boolean>;
  close(): Promise<void>;
}

function isPassing(error: unknown): boolean {
  return !isGrpcServiceError(error) || PASSING_CODES.has(error.code);
}

async function areRegistered(connection: Connection, namespace: string): Promise<boolean> {
  const { customAttributes } = await connection.operatorService.listSearchAttributes({ namespace });
  return Object.entries(ATTRIBUTES).every(([name, type]) => customAttributes?.[name] === type);
}

async function register(connection: Connection, namespace: string, logger: Logger): Promise<boolean> {
  try {
    if (!(await areRegistered(connection, namespace))) {
      await connection.operatorService.addSearchAttributes({ namespace, searchAttributes: ATTRIBUTES });
    }
    return true;
  } catch (error) {
    if (isPassing(error)) {
      throw error;
    }
    logger.warn(
      { err: error },
      "Temporal refuses to register our search attributes; resyncs run without them. Someone who may can run: " +
        `${REGISTER_COMMAND} --namespace ${namespace}`,
    );
    return false;
  }
}

/** Where serve and worker look for Temporal if nobody named one: a server on this machine. */
export const DEFAULT_ADDRESS = "127.0.0.1:7233";

/** Opens the link; nothing is connected yet, since Temporal may be away when we start. */
export function openTemporal(config: TemporalConfig, logger: Logger): TemporalLink {
  const { address, tls, apiKey, metadata } = config.connectionOptions;
  const connection = Connection.lazy({
    address: address ?? DEFAULT_ADDRESS,
    ...(tls !== undefined && tls !== null && { tls }),
    ...(apiKey !== undefined && { apiKey }),
    ...(metadata !== undefined && { metadata }),
    connectTimeout: CALL_WITHIN_MS,
  });
  const { namespace, taskQueue } = config;
  const within = <T>(work: () => Promise<T>): Promise<T> => connection.withDeadline(Date.now() + CALL_WITHIN_MS, work);
  let registration: Promise<boolean> | undefined;
  return {
    client: new Client({ connection, namespace }),
    connection,
    namespace,
    taskQueue,
    within,
    searchAttributes: async () => {
      registration ??= within(() => register(connection, namespace, logger));
      try {
        return await registration;
      } catch (error) {
        registration = undefined;
        throw error;
      }
    },
    close: () => connection.close(),
  };
}
