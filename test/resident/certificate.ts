import { generate } from "selfsigned";

let made: Promise<{ key: string; cert: string }> | undefined;

/** A self-signed certificate for loopback names, one for the whole process. */
export async function loopbackCertificate(): Promise<{ key: string; cert: string }> {
  made ??= generate([{ name: "commonName", value: "localhost" }], {
    keyType: "ec",
    algorithm: "sha256",
    extensions: [
      {
        name: "subjectAltName",
        altNames: [
          { type: 2, value: "localhost" },
          { type: 7, ip: "127.0.0.1" },
        ],
      },
    ],
  }).then(({ private: key, cert }) => ({ key, cert }));
  return await made;
}
