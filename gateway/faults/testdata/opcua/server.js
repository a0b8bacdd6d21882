// The OPC UA server of the interoperability tests: node-opcua, an implementation that shares no code
// with the gateway's. Usage: node server.js PORT FIRST DIRECTORY [secured]. It listens on 127.0.0.1 only, prints
// "READY PORT" when it serves, and keeps its certificates in DIRECTORY. Secured, it also offers every policy, signed and encrypted,
// and knows the user "operator" with the password "päss".
"use strict";
const path = require("path");
const opcua = require("node-opcua");
const { DataType, Variant, VariantArrayType, StatusCodes, DataValue } = opcua;

const port = Number(process.argv[2]);
let scan = Number(process.argv[3]); // the number before the first scan
const directory = process.argv[4];
const secured = process.argv[5] === "secured";

// One row a node: name, type, value. The Go side (interop_opcua_test.go) holds the same table.
const fixed = [
  ["Bool", DataType.Boolean, true],
  ["SByte", DataType.SByte, -7],
  ["Byte", DataType.Byte, 200],
  ["Int16", DataType.Int16, -12345],
  ["UInt16", DataType.UInt16, 54321],
  ["Int32", DataType.Int32, -123456789],
  ["UInt32", DataType.UInt32, 4000000000],
  ["Int64", DataType.Int64, [0xfffffffe, 0x00000001]], // high, low: -8589934591
  ["UInt64", DataType.UInt64, [0x00000001, 0x00000002]], // 4294967298
  ["Float", DataType.Float, 3.14159274],
  ["Double", DataType.Double, 2.718281828459045],
  ["String", DataType.String, "Größe 5 µm"],
  ["DateTime", DataType.DateTime, new Date("2026-01-02T03:04:05.678Z")],
];

async function main() {
  const certificates = new opcua.OPCUACertificateManager({
    automaticallyAcceptUnknownCertificate: true,
    rootFolder: path.join(directory, "pki"),
  });
  await certificates.initialize();
  const server = new opcua.OPCUAServer({
    host: "127.0.0.1",
    hostname: "127.0.0.1",
    port,
    resourcePath: "",
    allowAnonymous: true,
    ...security(),
    serverCertificateManager: certificates,
    registerServerMethod: opcua.RegisterServerMethod.HIDDEN,
    buildInfo: { productName: "millrace interop" },
    disableDiscovery: true,
  });
  await server.initialize();
  addNodes(server);
  await server.start();
  console.log("READY " + port);
}

function security() {
  const { SecurityPolicy: p, MessageSecurityMode: m } = opcua;
  if (!secured) return { securityPolicies: [p.None], securityModes: [m.None] };
  return {
    securityPolicies: [p.None, p.Basic256Sha256, p.Aes128_Sha256_RsaOaep, p.Aes256_Sha256_RsaPss],
    securityModes: [m.None, m.Sign, m.SignAndEncrypt],
    userManager: { isValidUser: (name, password) => name === "operator" && password === "päss" },
  };
}

function addNodes(server) {
  const ns = server.engine.addressSpace.getOwnNamespace();
  const folder = ns.addFolder("ObjectsFolder", { browseName: "Interop" });
  const add = (name, dataType, more) =>
    ns.addVariable({ componentOf: folder, browseName: name, nodeId: "s=Interop." + name, dataType, ...more });

  for (const [name, dataType, value] of fixed) {
    add(name, dataType, { value: { dataType, arrayType: VariantArrayType.Scalar, value } });
  }
  add("FloatArray", DataType.Float, {
    valueRank: 1,
    value: { dataType: DataType.Float, arrayType: VariantArrayType.Array, value: new Float32Array([1.5, -2.25, 3]) },
  });
  add("Int32Array", DataType.Int32, {
    valueRank: 1,
    value: { dataType: DataType.Int32, arrayType: VariantArrayType.Array, value: new Int32Array([1, -2, 3, -4]) },
  });

  // Scan counts the Read requests that name it: each poll gets the next number, so that a lost poll is
  // a missing number. Each is told on stdout: "SCAN NUMBER MILLISECONDS-SINCE-1970". (Counting in the
  // getter would not do: node-opcua calls it twice a request.)
  const counter = add("Scan", DataType.UInt32, {
    minimumSamplingInterval: 50,
    value: { get: () => new Variant({ dataType: DataType.UInt32, value: scan }) },
  });
  server.on("request", (request) => {
    const nodes = request.nodesToRead || [];
    if (nodes.some((n) => n.nodeId.toString() === counter.nodeId.toString())) {
      scan++;
      console.log("SCAN " + scan + " " + Date.now());
    }
  });
  // Beat counts by itself, for those who subscribe: a change that is lost is a missing number.
  const beat = add("Beat", DataType.UInt32, { value: { dataType: DataType.UInt32, value: 0 } });
  let beats = 0;
  server.engine.addressSpace.installHistoricalDataNode(beat, { maxOnlineValues: 10000 });
  setInterval(() => beat.setValueFromSource({ dataType: DataType.UInt32, value: ++beats }), 100);
  // Broken is a node whose device behind the server does not answer.
  add("Broken", DataType.Double, {
    minimumSamplingInterval: 50,
    value: { timestamped_get: () => new DataValue({ statusCode: StatusCodes.BadCommunicationError }) },
  });
  // Still and Epoch never change: their source timestamp is that of a change long ago, or of a clock that was never set.
  for (const [name, time] of [["Still", new Date(Date.now() - 60 * 86400e3)], ["Epoch", new Date(0)]]) {
    add(name, DataType.Double, {
      minimumSamplingInterval: 50,
      value: {
        timestamped_get: () =>
          new DataValue({ sourceTimestamp: time, value: new Variant({ dataType: DataType.Double, value: 7.5 }) }),
      },
    });
  }
  // Unsure has a value that the server itself does not trust.
  add("Unsure", DataType.Double, {
    minimumSamplingInterval: 50,
    value: {
      timestamped_get: () =>
        new DataValue({
          statusCode: StatusCodes.UncertainSensorNotAccurate,
          sourceTimestamp: new Date(),
          value: new Variant({ dataType: DataType.Double, value: 42.5 }),
        }),
    },
  });
}

process.on("SIGTERM", () => process.exit(0));
main().catch((err) => {
  console.error(err);
  process.exit(1);
});
