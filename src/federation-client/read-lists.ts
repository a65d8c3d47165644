import type { StateIdsResponse } from "../federation-api/endpoints.ts";
import { isEventId, type EventId } from "../matrix/identifiers.ts";
import type { JsonValue } from "../matrix/json.ts";
import { jsonWeight } from "../matrix/json-weight.ts";
import { LargeJsonError } from "./json-splitter.ts";
import { readLargeJson } from "./large-json.ts";

/** In memory. Twenty events of the size limit weigh two MiB, a hundred honest ones less. */
const MAX_LIST_WEIGHT = 16 * 1024 * 1024;

/** The largest rooms that are known have half as many, state and auth chain together. */
const MAX_STATE_IDS = 400_000;

/**
 * A reader of a list of events that stands under `list`. What comes behind the first `most` was not asked for and is let
 * go unread.
 */
export function eventsIn(
  list: string,
  most: number,
): (body: AsyncIterable<Uint8Array>) => Promise<readonly JsonValue[]> {
  return async (body) => {
    const pdus: JsonValue[] = [];
    let weight = 0;
    const onElement = (_list: string, pdu: JsonValue): void => {
      if (pdus.length >= most) return;
      weight += jsonWeight(pdu);
      if (weight > MAX_LIST_WEIGHT) throw new LargeJsonError(`${list} holds more than ${most} events can take`);
      pdus.push(pdu);
    };
    await readLargeJson(body, { lists: [list], members: [], onElement });
    return pdus;
  };
}

/** Of the largest rooms, ten MiB of ids: they are taken one by one. */
export async function readStateIds(body: AsyncIterable<Uint8Array>): Promise<StateIdsResponse> {
  const pduIds: EventId[] = [];
  const authChainIds: EventId[] = [];
  const onElement = (list: string, id: JsonValue): void => {
    if (!isEventId(id)) throw new LargeJsonError(`${list} holds something else than event ids`);
    if (pduIds.length + authChainIds.length >= MAX_STATE_IDS) {
      throw new LargeJsonError(`it names more than ${MAX_STATE_IDS} events`);
    }
    (list === "pdu_ids" ? pduIds : authChainIds).push(id);
  };
  await readLargeJson(body, { lists: ["pdu_ids", "auth_chain_ids"], members: [], onElement });
  return { pdu_ids: pduIds, auth_chain_ids: authChainIds };
}
