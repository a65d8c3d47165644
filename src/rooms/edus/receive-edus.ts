import type { ServerName } from "../../matrix/identifiers.ts";
import { isJsonObject, type JsonObject, type JsonValue } from "../../matrix/json.ts";
import { DatabaseUnavailable } from "../../storage/errors.ts";
import type { RoomsContext } from "../context.ts";
import { receiveDeviceListUpdate, receiveSigningKeyUpdate } from "../devices/receive-device-updates.ts";
import { receiveDirectToDevice } from "../devices/to-device.ts";
import { EduUnusable } from "../edu-unusable.ts";
import { receivePresence } from "./receive-presence.ts";
import { receiveReceipts } from "./receipts.ts";
import { receiveTyping } from "./typing.ts";

/**
 * Handles the content of one EDU: stores what it says and returns. It asks no other server, for whose answer the rest
 * of the transaction would wait. The same EDU may come twice. Throws {@link EduUnusable} for what it can't read.
 */
type EduHandler = (ctx: RoomsContext, origin: ServerName, content: JsonObject) => Promise<void>;

const HANDLERS: Readonly<Record<string, EduHandler>> = {
  "m.typing": receiveTyping,
  "m.receipt": receiveReceipts,
  "m.presence": receivePresence,
  "m.device_list_update": receiveDeviceListUpdate,
  "m.signing_key_update": receiveSigningKeyUpdate,
  "m.direct_to_device": receiveDirectToDevice,
};

/**
 * Handles a transaction's EDUs in their order. What can't be read or handled is logged and dropped: it must not keep
 * the transaction's other parts from us, as its sender would repeat it all for days. An EDU of an unknown type is
 * nothing to us.
 *
 * @throws DatabaseUnavailable
 * @see https://spec.matrix.org/v1.19/server-server-api/#edus
 */
export async function receiveEdus(ctx: RoomsContext, origin: ServerName, edus: readonly JsonValue[]): Promise<void> {
  for (const edu of edus) {
    try {
      await receiveEduTwice(ctx, origin, edu);
    } catch (error) {
      const eduType = isJsonObject(edu) ? edu["edu_type"] : undefined;
      if (error instanceof EduUnusable) {
        ctx.logger.info({ origin, eduType, reason: error.message }, "an EDU was dropped");
      } else if (error instanceof DatabaseUnavailable) {
        // Nothing is wrong with the EDU: its transaction is not acknowledged, and comes again.
        throw error;
      } else {
        ctx.logger.error({ err: error, origin, eduType }, "an EDU could not be handled and was dropped");
      }
    }
  }
}

/** Two writers that meet in the database, or a connection that it loses, must not cost a message to a device. */
async function receiveEduTwice(ctx: RoomsContext, origin: ServerName, edu: JsonValue): Promise<void> {
  try {
    await receiveEdu(ctx, origin, edu);
  } catch (error) {
    if (error instanceof EduUnusable) throw error;
    ctx.logger.warn({ err: error, origin }, "an EDU could not be handled; tried again");
    await receiveEdu(ctx, origin, edu);
  }
}

async function receiveEdu(ctx: RoomsContext, origin: ServerName, edu: JsonValue): Promise<void> {
  if (!isJsonObject(edu) || typeof edu["edu_type"] !== "string" || !isJsonObject(edu["content"])) {
    throw new EduUnusable("it has no type or no content");
  }
  const type = edu["edu_type"];
  const handle = Object.hasOwn(HANDLERS, type) ? HANDLERS[type] : undefined;
  await handle?.(ctx, origin, edu["content"]);
}
