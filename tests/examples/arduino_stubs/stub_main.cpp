// What the Arduino core does with a sketch. SKETCH is the file; RAM is not limited here.
#include SKETCH

int main() {
  setup();
  for (;;) {
    brakeTimer.look();
    loop();
    usleep(2000);
  }
}
