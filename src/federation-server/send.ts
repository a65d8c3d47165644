import { MAX_TRANSACTION_EDUS, MAX_TRANSACTION_PDUS } from "../federation-api/endpoints.ts";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { receiveTransaction } from "../rooms/receive/receive-transaction.ts";
import { signedEndpoint } from "./endpoint.ts";
import type { Endpoint } from "./endpoint.ts";
import { arrayIn, objectBody, txnIdOf } from "./request-parameters.ts";

/** A full transaction: each of its PDUs and EDUs at the size limit of an event, and the JSON around them. */
const MAX_TRANSACTION_BYTES = 200 * 65_536;

/** @see https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid */
export const sendEndpoints: readonly Endpoint[] = [
  signedEndpoint(
    "PUT /_matrix/federation/v1/send/:txnId",
    async (ctx, request) => {
      const body = objectBody(request);
      if (body["pdus"] === undefined) throw new MatrixError(400, "M_BAD_JSON", "pdus is missing");
      const pdus = arrayIn(body, "pdus");
      const edus = arrayIn(body, "edus");
      if (pdus.length > MAX_TRANSACTION_PDUS || edus.length > MAX_TRANSACTION_EDUS) {
        const limits = `${MAX_TRANSACTION_PDUS} PDUs and ${MAX_TRANSACTION_EDUS} EDUs`;
        throw new MatrixError(400, "M_INVALID_PARAM", `A transaction holds at most ${limits}`);
      }
      const results = await receiveTransaction(ctx, { origin: request.origin, txnId: txnIdOf(request), pdus, edus });
      return { pdus: results };
    },
    MAX_TRANSACTION_BYTES,
  ),
];
