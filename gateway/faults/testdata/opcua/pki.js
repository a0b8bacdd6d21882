// Certificates of the interoperability tests, made by node-opcua-pki: node pki.js DIRECTORY. It writes there the authorities root, middle (by root), lapsed (by
// root, revoked) and other, each NAME.der and NAME.crl, and for each server below NAME.pem, with the chain that it sends, and NAME.key.
"use strict";
const fs = require("fs");
const path = require("path");
const { CertificateAuthority } = require("node-opcua-pki");
const { split_der } = require("node-opcua-crypto");
const directory = process.argv[2];
const day = 86400e3;

// node-opcua-pki gives the first certificate behind an authority the number of that: the twin of lapsed is revoked with it, and is no server.
const servers = [
  ["twin", "root", {}],
  ["good", "root", {}],
  ["stranger", "other", {}],
  ["revoked", "root", {}],
  ["chained", "middle", { sends: ["middle"] }],
  ["unchained", "middle", {}],
  ["orphan", "lapsed", { sends: ["lapsed"] }],
  ["expired", "root", { startDate: new Date(Date.now() - 20 * day), validity: 10 }],
  ["early", "root", { startDate: new Date(Date.now() + 10 * day), validity: 10 }],
  ["host", "root", { dns: ["press-7"], ip: ["10.0.0.7"] }],
  ["uri", "root", { applicationUri: "urn:millrace:else" }],
  ["weak", "root", { keySize: 1024 }],
];

const pem = (der) => "-----BEGIN CERTIFICATE-----\n" + der.toString("base64").replace(/.{1,64}/g, "$&\n") + "-----END CERTIFICATE-----\n";

function authority(name) {
  return new CertificateAuthority({ keySize: 2048, location: path.join(directory, "ca-" + name), subject: "/CN=" + name });
}

async function below(root, name) {
  const made = authority(name);
  const { csrPath } = await made.initializeCSR();
  const signed = path.join(directory, "ca-" + name + ".pem");
  await root.signCACertificateRequest(signed, csrPath, { validity: 365 });
  const { status, message } = await made.installCACertificate(signed);
  if (status !== "success") throw new Error(message);
  return made;
}

async function main() {
  const all = { root: authority("root"), other: authority("other") };
  await all.root.initialize();
  await all.other.initialize();
  for (const name of ["middle", "lapsed"]) all[name] = await below(all.root, name);
  for (const [name, by, spoilt] of servers) {
    const { sends = [], ...options } = spoilt;
    const { certificateDer, privateKey } = await all[by].generateKeyPairAndSignDER({
      applicationUri: "urn:millrace:interop", subject: "/CN=" + name, dns: ["localhost"], ip: ["127.0.0.1"], validity: 30, ...options,
    });
    fs.writeFileSync(path.join(directory, name + ".pem"), [split_der(certificateDer)[0], ...sends.map((s) => all[s].getCACertificateDER())].map(pem).join(""));
    fs.writeFileSync(path.join(directory, name + ".key"), privateKey.hidden.export({ type: "pkcs8", format: "pem" }));
    if (name === "revoked") await all.root.revokeCertificateDER(certificateDer);
  }
  await all.root.revokeCertificateDER(all.lapsed.getCACertificateDER());
  for (const [name, a] of Object.entries(all)) {
    fs.writeFileSync(path.join(directory, name + ".der"), a.getCACertificateDER());
    fs.writeFileSync(path.join(directory, name + ".crl"), a.getCRLDER());
  }
}

main().catch((err) => {
  console.error(err);
  process.exit(1);
});
