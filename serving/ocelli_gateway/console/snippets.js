// Programs that classify an image with one classifier. They run as they are, with a key in OCELLI_API_KEY and an image in photo.jpg.

const VERSION = "2018-03-19";

/** {endpoint, programs: [{name, text, note}]} */
export function buildSnippets({ service, classifierId }) {
  const endpoint = `${service}/v3/classify?version=${VERSION}`;
  return {
    endpoint,
    programs: [
      { name: "curl", text: curl(endpoint, classifierId) },
      { name: "Python", text: python(endpoint, classifierId), note: "With the package requests." },
      { name: "Node", text: node(endpoint, classifierId), note: "Node 20 or newer, without packages." },
    ],
  };
}

function curl(endpoint, id) {
  return `curl -u "apikey:$OCELLI_API_KEY" \\
  -F images_file=@photo.jpg \\
  -F classifier_ids=${id} \\
  "${endpoint}"
`;
}

function python(endpoint, id) {
  return `import os

import requests

with open("photo.jpg", "rb") as image:
    answer = requests.post(
        "${endpoint}",
        auth=("apikey", os.environ["OCELLI_API_KEY"]),
        files={"images_file": image},
        data={"classifier_ids": "${id}", "threshold": "0.0"},
    )
answer.raise_for_status()
for classifier in answer.json()["images"][0]["classifiers"]:
    for found in classifier["classes"]:
        print(found["class"], found["score"])
`;
}

function node(endpoint, id) {
  return `import { openAsBlob } from "node:fs";

const form = new FormData();
form.set("images_file", await openAsBlob("photo.jpg"), "photo.jpg");
form.set("classifier_ids", "${id}");
form.set("threshold", "0.0");
const key = Buffer.from(\`apikey:\${process.env.OCELLI_API_KEY}\`).toString("base64");
const answer = await fetch("${endpoint}", { method: "POST", headers: { Authorization: \`Basic \${key}\` }, body: form });
if (!answer.ok) throw new Error((await answer.json()).error);
for (const classifier of (await answer.json()).images[0].classifiers) {
  for (const found of classifier.classes) console.log(found.class, found.score);
}
`;
}
