// Images from the camera. A click starts it; it stops when the page no longer needs it.

import { fill, h } from "../dom.js";
import { button } from "./button.js";

const JPEG_QUALITY = 0.95;

export class Camera {
  /** `onImage(file)` is called with a JPEG file; `announce(text)` speaks. */
  constructor({ onImage, announce }) {
    Object.assign(this, { onImage, announce });
    this.element = h("div", { class: "camera" });
    this.number = 0;
  }

  async start() {
    if (this.stream) {
      return;
    }
    if (!navigator.mediaDevices) {
      this.refuse("Browsers allow the camera only on https pages and on localhost.");
      return;
    }
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
    } catch (error) {
      this.refuse(describe(error));
      return;
    }
    this.video = h("video", { autoplay: true, muted: true, playsinline: true, "aria-label": "What the camera sees", srcObject: this.stream });
    const take = button("Take an image", () => this.take(), { class: "primary" });
    fill(this.element, this.video, h("p", { class: "actions" }, take, button("Switch off the camera", () => this.stop())));
    take.focus();
    this.announce("The camera is on.");
  }

  take() {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width) {
      return;
    }
    const canvas = h("canvas", { width, height });
    canvas.getContext("2d").drawImage(this.video, 0, 0);
    this.number += 1;
    const name = `camera ${this.number}.jpg`;
    canvas.toBlob((blob) => this.onImage(new File([blob], name, { type: "image/jpeg" })), "image/jpeg", JPEG_QUALITY);
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = undefined;
    fill(this.element);
  }

  refuse(text) {
    fill(this.element, h("p", { class: "hint", role: "alert" }, text));
  }
}

function describe(error) {
  if (error.name === "NotAllowedError") {
    return "The camera is not allowed for this page. Allow it in the browser, then press the button again.";
  }
  return error.name === "NotFoundError" ? "No camera was found." : `The camera cannot be used: ${error.message}`;
}
